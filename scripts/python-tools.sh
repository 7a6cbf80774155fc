#!/usr/bin/env bash
# Leaves .venv/bin/python, a Python with the pinned packages of tests/requirements.txt. Tests call it by that path.
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=.venv/requirements.txt
if cmp -s tests/requirements.txt "$stamp" && .venv/bin/python -c 'import pynetdicom' 2>/dev/null; then
    exit 0
fi
echo "python-tools: installing tests/requirements.txt into .venv"
rm -rf .venv
install=(install --quiet --disable-pip-version-check --no-input --require-hashes --only-binary=:all: --requirement tests/requirements.txt)
export PIP_REQUIRE_VIRTUALENV=0 PIP_USER=0 PIP_ROOT_USER_ACTION=ignore
if python3 -c 'import ensurepip, venv' 2>/dev/null; then
    python3 -m venv .venv
    .venv/bin/python -m pip "${install[@]}"
else
    # No venv module (Debian packs it apart): the same packages in a folder of their own, behind the same name.
    mkdir -p .venv/bin .venv/packages
    python3 -m pip "${install[@]}" --target .venv/packages
    printf '#!/bin/sh\nPYTHONPATH="%s/.venv/packages" exec python3 "$@"\n' "$PWD" > .venv/bin/python
    chmod +x .venv/bin/python
fi
cp tests/requirements.txt "$stamp"
