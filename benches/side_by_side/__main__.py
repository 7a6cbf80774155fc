"""Measures the node beside its peers, in one run on this machine: `make bench`.

    .venv-bench/bin/python -m side_by_side --program target/release/triaged --out benches

Everything runs on 127.0.0.1, in a scratch folder that is removed. What a measurement needs and is missing is left out
aloud. Writes results.json (every figure), results.md (tables) and pictures; what was not measured in this run is taken
over from the last results.json of the same machine and program, and marked with the time of its own run.
"""

import argparse
import datetime
import hashlib
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile

from . import disk, end_to_end, footprint, ingest, latency, pictures, report, scale, senders
from .processes import Failed

PARTS = {
    "disk": lambda bench: disk.measure(bench, 526_000),
    "ingest": ingest.measure,
    "end-to-end": end_to_end.measure,
    "latency": latency.measure,
    "footprint": footprint.measure,
    "scale": scale.measure,
}


class Bench:
    """What the measurements share."""

    def __init__(self, arguments, folder):
        self.program = os.path.abspath(arguments.program)
        self.card = arguments.card
        self.tools = arguments.tools
        self.folder = pathlib.Path(folder).resolve()
        self.senders = [kind for kind in senders.ALL if not arguments.senders or kind.short in arguments.senders]
        self.repeats = 1 if arguments.quick else arguments.repeats
        self.objects = 40 if arguments.quick else 300
        self.slices = 40 if arguments.quick else 300
        self.latency_rounds = 2 if arguments.quick else 20
        self.ledger_rows = 20_000 if arguments.quick else 1_000_000
        self.missing = {}
        self.versions = {}

    def say(self, line):
        print(line, flush=True)

    def present(self, kinds):
        """Those of the peers that are installed; the others are named once."""
        there = []
        for kind in kinds:
            peer = kind(self.tools)
            if peer.available():
                there.append(peer)
                self.versions[peer.name] = peer.version()
            elif kind.name not in self.missing:
                self.missing[kind.name] = "not installed"
                self.say(f"MISSING {kind.name}: left out")
        if not there:
            raise Failed("no sender is installed")
        return there


def machine():
    model = next(
        (line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine()
    )
    memory = next(int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith("MemTotal"))
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**20),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True, help="the triaged to measure")
    parser.add_argument("--card", default="models/m11.json", help="its model card")
    parser.add_argument("--tools", default=".cache/bench/bin", help="where cargo installed dicom-rs's tools")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("benches"))
    parser.add_argument("--scratch", help="a folder on the disk to measure (default: the output's)")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="these measurements alone")
    parser.add_argument("--senders", nargs="+", choices=[kind.short for kind in senders.ALL], help="ingest from these alone")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each; the median counts")
    parser.add_argument("--quick", action="store_true", help="tiny and once: shows that it works, measures nothing")
    arguments = parser.parse_args()
    results_file = arguments.out / "results.json"
    here = {"machine": machine(), "program_sha256": sha256(arguments.program)}
    results = {"parts": {}}
    if results_file.exists() and not arguments.quick:
        before = json.loads(results_file.read_text())
        if {key: before.get(key) for key in here} == here:
            results = before
    results |= here
    failed = False
    with tempfile.TemporaryDirectory(prefix="triaged-bench-", dir=arguments.scratch or arguments.out) as scratch:
        for name in arguments.only or PARTS:
            folder = pathlib.Path(scratch) / name
            folder.mkdir()
            bench = Bench(arguments, folder)
            bench.say(f"\n== {name}")
            try:
                figures = PARTS[name](bench)
            except Failed as failure:
                bench.say(f"FAILED {name}: {failure}")
                failed = True
                continue
            results["parts"][name] = {
                "measured_at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
                "repeats": bench.repeats,
                "figures": figures,
                "versions": bench.versions,
                "missing": bench.missing,
            }
            subprocess.run(["rm", "-rf", str(folder)], check=True)
            if not arguments.quick:
                results_file.write_text(json.dumps(results, indent=1) + "\n")
    text = report.markdown(results)
    print("\n" + text)
    if arguments.quick:
        print("A quick run: nothing was written.")
    else:
        drawn = pictures.draw(results, arguments.out)
        (arguments.out / "results.md").write_text(text + "".join(f"\n![{title}]({file})\n" for title, file in drawn))
        print(f"Written: {arguments.out / 'results.md'}, results.json, " + ", ".join(file for _, file in drawn))
    return 1 if failed else 0


def sha256(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
