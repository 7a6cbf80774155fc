#!/usr/bin/env python3
"""Says which tests were skipped and why: skips.py REPORT, where REPORT is nextest's junit.xml or what `cargo test --
--show-output` printed.

A test that lacks what it needs passes and prints a line `SKIP <why>`; both runners swallow what a passing test prints.
"""

import re
import sys
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path

SKIP = re.compile(r"^.*\bSKIP:?\s+(\S.*)$", re.MULTILINE)
# cargo test's heading of what a test printed: `---- node::web::page stdout ----`.
HEADING = re.compile(r"^---- (\S+) stdout ----$", re.MULTILINE)


def from_junit(text: str):
    """Each test's name and what it printed."""
    for case in ElementTree.fromstring(text).iter("testcase"):
        printed = [case.findtext("system-out") or "", case.findtext("system-err") or ""]
        yield f"{case.get('classname')} {case.get('name')}", "\n".join(printed)


def from_cargo(text: str):
    parts = HEADING.split(text)
    yield from zip(parts[1::2], parts[2::2])


def main(report: str) -> None:
    text = Path(report).read_text(encoding="utf-8", errors="replace")
    tests = from_junit(text) if text.lstrip().startswith("<?xml") else from_cargo(text)
    reasons = defaultdict(dict)
    skipped = set()
    for name, printed in tests:
        for reason in SKIP.findall(printed):
            reasons[reason.strip()][name] = None
            skipped.add(name)
    if not skipped:
        print("Skipped: nothing")
        return
    print(f"Skipped, whole or in part: {len(skipped)} test{'s' if len(skipped) > 1 else ''}")
    for reason, names in sorted(reasons.items()):
        print(f"  {reason}")
        for name in names:
            print(f"      {name}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
