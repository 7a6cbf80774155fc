#!/usr/bin/env bash
# Runs every test of the workspace, with nextest where it is installed, and says at the end which were skipped and why.
# ORT_DYLIB_PATH names the ONNX Runtime library, for test programs that do not lie beside it.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${NEXTEST_PROFILE:-default}
output=${CARGO_TARGET_DIR:-target}/test-output.txt
mkdir -p "$(dirname "$output")"

status=0
if cargo nextest --version >/dev/null 2>&1; then
    report=${CARGO_TARGET_DIR:-target}/nextest/$profile/junit.xml
    rm -f "$report"
    # nextest leaves the examples in the documentation to cargo; first, so that nextest's summary closes the output.
    cargo test --release --locked --workspace --doc --quiet || status=$?
    cargo nextest run --release --locked --workspace --profile "$profile" || status=$?
else
    echo "test: cargo-nextest is not installed, using cargo test"
    report=$output
    # cargo test has no time limit for a test that hangs.
    timeout --kill-after=10 2400 cargo test --release --locked --workspace -- --show-output 2>&1 | tee "$output" || status=$?
fi
if [[ -s $report ]]; then scripts/skips.py "$report"; fi
exit "$status"
