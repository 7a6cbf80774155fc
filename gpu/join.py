#!/usr/bin/env python3
"""Puts a bundle's parts together again and checks every byte. Needs nothing but Python 3.

    python3 join.py [--to FOLDER]       the parts and SHA256SUMS lie beside this file; FOLDER is `bundle` there

Exit codes: 0 all is there; 1 a part is missing, cut off or changed.
"""

import argparse
import hashlib
import io
import os
import pathlib
import shutil
import sys
import tarfile

HERE = pathlib.Path(__file__).resolve().parent


class Joined(io.RawIOBase):
    """Files read as one."""

    def __init__(self, paths):
        self.paths, self.file = list(paths), None

    def readable(self):
        return True

    def readinto(self, buffer):
        while True:
            if self.file is None:
                if not self.paths:
                    return 0
                self.file = open(self.paths.pop(0), "rb")
            count = self.file.readinto(buffer)
            if count:
                return count
            self.file.close()
            self.file = None


def digest(path):
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


def listed(path):
    """Pairs of digest and name."""
    return [line.split("  ", 1) for line in path.read_text().splitlines() if line]


def wrong(folder, pairs):
    """What of the listed files is missing or changed."""
    found = []
    for sha, name in pairs:
        path = folder / name
        if not path.is_file():
            found.append(f"{name} is missing")
        elif digest(path) != sha:
            found.append(f"{name} is cut off or changed")
    return found


def fail(problems):
    for problem in problems:
        print(f"join: {problem}", file=sys.stderr)
    sys.exit(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=pathlib.Path, default=HERE / "bundle")
    target = parser.parse_args().to
    if not (HERE / "SHA256SUMS").is_file():
        fail(["SHA256SUMS is missing"])
    parts = listed(HERE / "SHA256SUMS")
    problems = wrong(HERE, parts)
    if problems:
        fail(problems)
    # Unpacked beside and renamed, so that a folder of that name is whole.
    draft = target.with_name(target.name + ".draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    joined = io.BufferedReader(Joined(HERE / name for _, name in parts), 1 << 20)
    with tarfile.open(fileobj=joined, mode="r|xz") as archive:
        if hasattr(tarfile, "data_filter"):
            archive.extractall(draft, filter="data")
        else:
            archive.extractall(draft)
    problems = wrong(draft, listed(draft / "CONTENTS"))
    if problems:
        fail(problems)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(draft, target)
    print(f"join: {target} is complete")


if __name__ == "__main__":
    main()
