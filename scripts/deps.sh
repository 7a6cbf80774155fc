#!/usr/bin/env bash
# Installs the system packages that building (`deps.sh build`) or testing (`deps.sh test`) needs and that are missing.
# Says what it does; does nothing, quickly, when all is there.
set -euo pipefail

purpose=${1:?usage: deps.sh build|test}
PATH=$PATH:/usr/sbin:/sbin   # where Debian puts Orthanc and what an ordinary user's PATH lacks
missing=()

# need PACKAGE COMMAND...: the package is missing unless the command succeeds.
need() {
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}

case $purpose in
build)
    need build-essential sh -c 'command -v cc && command -v c++ && command -v make'
    need cmake command -v cmake                     # CharLS (JPEG-LS) is built from source
    need ca-certificates test -s /etc/ssl/certs/ca-certificates.crt
    need python3 command -v python3                 # fetches ONNX Runtime
    need python3-pip python3 -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('pip') is None)"
    ;;
test)
    need chromium command -v chromium               # the pages' browser
    need fonts-dejavu-core test -d /usr/share/fonts/truetype/dejavu
    need dcmtk sh -c 'command -v storescu && command -v dcmsend && command -v echoscu'
    need orthanc command -v Orthanc
    need rsyslog command -v rsyslogd
    need rsyslog-gnutls sh -c 'ls /usr/lib/*/rsyslog/lmnsd_gtls.so'   # audit messages over TLS
    need dicom3tools command -v dciodvfy            # checks reports and key images
    need libpixelmed-java test -e /usr/share/java/pixelmed.jar
    need default-jre-headless command -v java
    need python3-venv python3 -c 'import ensurepip, venv'
    ;;
*)
    echo "usage: deps.sh build|test" >&2
    exit 2
    ;;
esac

if ((${#missing[@]})); then
    echo "deps: missing: ${missing[*]}"
    if ! command -v apt-get >/dev/null; then
        echo "deps: this is not Debian or a relative of it: install what corresponds to the packages above, then run make again" >&2
        exit 1
    fi
    as_root=()
    if ((EUID != 0)); then
        if ! command -v sudo >/dev/null; then
            echo "deps: not root, and there is no sudo; ask an administrator for: apt-get install ${missing[*]}" >&2
            exit 1
        fi
        as_root=(sudo)
        [[ -t 0 ]] || as_root+=(-n)   # nobody there to type a password
    fi
    # A machine that only tests must not find itself serving DICOM: Debian starts what it installs unless told not to.
    quiet=/usr/sbin/policy-rc.d
    if [[ " ${missing[*]} " =~ " orthanc "|" rsyslog " && ! -e $quiet ]]; then
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$quiet" >/dev/null
        trap '"${as_root[@]}" rm -f "$quiet"' EXIT
        "${as_root[@]}" chmod 755 "$quiet"
    fi
    echo "deps: ${as_root[*]:+${as_root[*]} }apt-get install ${missing[*]}"
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 "${missing[@]}" >/dev/null
    if [[ " ${missing[*]} " == *" orthanc "* && -d /run/systemd/system ]]; then
        "${as_root[@]}" systemctl disable --quiet orthanc || true
    fi
fi

if [[ $purpose == build ]]; then
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(dirname "$0")/../Cargo.toml" | head -n 1)
    if ! command -v cargo >/dev/null; then
        echo "deps: Rust $wanted or newer is needed and cargo is not on the PATH: install it with rustup (https://rustup.rs)" >&2
        exit 1
    fi
    have=$(rustc --version | cut -d' ' -f2)
    if [[ $(printf '%s\n' "$wanted" "$have" | sort -V | head -n 1) != "$wanted" ]]; then
        if command -v rustup >/dev/null; then
            advice="run 'rustup update stable'"
        else
            advice="the system's package is too old; install it with rustup (https://rustup.rs), and put ~/.cargo/bin first in the PATH"
        fi
        echo "deps: Rust $wanted or newer is needed, this is $have: $advice" >&2
        exit 1
    fi
fi
