"""Start-up time, and peak resident memory with 1, 16 and 64 associations open at once."""

import pathlib
import tempfile
import time

from . import receivers, senders
from .objects import make_objects
from .processes import Failed, wait
from .statistics import Sample

SCORING_SECONDS = 900


def measure(bench):
    return {"start": starts(bench), "memory": memories(bench)}


def starts(bench):
    """Seconds from the start of the program to /readyz = 200 (the model loaded and warmed up), with an empty ledger."""
    seconds = []
    for _ in range(bench.repeats):
        with tempfile.TemporaryDirectory(dir=bench.folder) as scratch:
            node = receivers.Triaged(bench.tools, bench.program, TRIAGED__INFERENCE__DEVICE="cpu")
            begin = time.monotonic()
            node.start(scratch)
            seconds.append(time.monotonic() - begin)
            node.stop()
    return Sample.of(seconds).plain()


def memories(bench):
    """MiB (VmHWM): while objects come in and are scored, and at the end of it all."""
    sender = bench.present(senders.ALL)[0]
    rows = []
    for associations in (1, 16, 64):
        objects = make_objects(bench.program, bench.folder / f"memory-{associations}", max(bench.slices, associations), scored=True)
        with tempfile.TemporaryDirectory(dir=bench.folder) as scratch:
            shares = objects.shares(associations, pathlib.Path(scratch) / "send")
            node = receivers.Triaged(bench.tools, bench.program, TRIAGED__INFERENCE__DEVICE="cpu")
            node.start(scratch)
            try:
                idle = node.running.resident_mib()
                senders.send(sender, node.port, shares)
                sent = node.running.peak_resident_mib()
                done = f"SELECT count(*) = {len(objects)} AND total(state = 'queued') = 0 FROM slice_results"
                wait("all slices to be scored", SCORING_SECONDS, lambda: node.ask(done)[0][0], pause=0.2)
                objects.verify(node.files())
                rows.append(
                    {
                        "associations": associations,
                        "objects": len(objects),
                        "idle": round(idle),
                        "peak_at_end_of_sending": round(sent),
                        "peak": round(node.running.peak_resident_mib()),
                    }
                )
            except Failed as failure:
                raise Failed(f"memory with {associations} associations: {failure}; {node.running.said()}") from failure
            finally:
                node.stop()
        bench.say(f"memory, {associations} associations: {rows[-1]}")
    return rows
