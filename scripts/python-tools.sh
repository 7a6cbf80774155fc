#!/usr/bin/env bash
# Leaves FOLDER/bin/python, a Python with the pinned packages of a requirements file; tests and benchmarks call it by that path.
set -euo pipefail
cd "$(dirname "$0")/.."

requirements=${1:?usage: python-tools.sh REQUIREMENTS FOLDER}
folder=${2:?usage: python-tools.sh REQUIREMENTS FOLDER}
stamp=$folder/requirements.txt
if cmp -s "$requirements" "$stamp" && "$folder/bin/python" -c 'import pynetdicom' 2>/dev/null; then
    exit 0
fi
echo "python-tools: installing $requirements into $folder"
rm -rf "$folder"
install=(install --quiet --disable-pip-version-check --no-input --require-hashes --only-binary=:all: --requirement "$requirements")
export PIP_REQUIRE_VIRTUALENV=0 PIP_USER=0 PIP_ROOT_USER_ACTION=ignore
if python3 -c 'import ensurepip, venv' 2>/dev/null; then
    python3 -m venv "$folder"
    "$folder/bin/python" -m pip "${install[@]}"
else
    # No venv module (Debian packs it apart): the same packages in a folder of their own, behind the same name.
    mkdir -p "$folder/bin" "$folder/packages"
    python3 -m pip "${install[@]}" --target "$folder/packages"
    printf '#!/bin/sh\nPYTHONPATH="%s/%s/packages" exec python3 "$@"\n' "$PWD" "$folder" > "$folder/bin/python"
    chmod +x "$folder/bin/python"
fi
cp "$requirements" "$stamp"
