#!/usr/bin/env bash
# Runs every test of the workspace, with nextest where it is installed, and repeats at the end what was skipped and why.
# ORT_DYLIB_PATH names the ONNX Runtime library, for test programs that do not lie beside it.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${NEXTEST_PROFILE:-default}
output=${CARGO_TARGET_DIR:-target}/test-output.txt
mkdir -p "$(dirname "$output")"

# A test that lacks what it needs passes and says "SKIP <why>"; both runners swallow what a passing test says.
report_skips() {
    local skipped
    skipped=$(grep -o 'SKIP [^<]*' "$1" | sed 's|&quot;|"|g; s|&apos;|'"'"'|g; s|&gt;|>|g; s|&lt;|<|g; s|&amp;|\&|g' | sort | uniq -c || true)
    if [[ $skipped ]]; then
        printf 'Skipped:\n%s\n' "$skipped"
    else
        echo "Skipped: nothing"
    fi
}

if cargo nextest --version >/dev/null 2>&1; then
    junit=${CARGO_TARGET_DIR:-target}/nextest/$profile/junit.xml
    rm -f "$junit"
    status=0
    # nextest leaves the examples in the documentation to cargo; first, so that nextest's summary closes the output.
    cargo test --release --locked --workspace --doc --quiet || status=$?
    cargo nextest run --release --locked --workspace --profile "$profile" || status=$?
    if [[ -f $junit ]]; then report_skips "$junit"; fi
    exit "$status"
else
    echo "test: cargo-nextest is not installed, using cargo test"
    # cargo test has no time limit for a test that hangs.
    timeout --kill-after=10 2400 cargo test --release --locked --workspace -- --show-output 2>&1 | tee "$output"
    report_skips "$output"
fi
