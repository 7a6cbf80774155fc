"""Objects a second into each receiver, from each sender, over 1, 4 and 16 associations."""

import pathlib
import tempfile

from . import receivers, senders
from .objects import make_objects
from .processes import Failed
from .statistics import Sample

ASSOCIATIONS = (1, 4, 16)


def measure(bench):
    """Rows of {sender, receiver, associations, rate}; every run's objects are verified before it counts."""
    chest = make_objects(bench.program, bench.folder / "chest", bench.objects, "CHEST")
    head = make_objects(bench.program, bench.folder / "head", bench.objects, "HEAD")
    scoring = receivers.Triaged(bench.tools, bench.program)
    scoring.name = "triaged, scoring meanwhile"
    contenders = [(receivers.Triaged(bench.tools, bench.program), chest), (scoring, head)]
    contenders += [(peer, chest) for peer in bench.present(receivers.PEERS)]
    rates = {}
    for sender in bench.present(bench.senders):
        for count in ASSOCIATIONS:
            # Whoever is slowed by something else on the machine, the others are too: the receivers take turns.
            for turn in range(bench.repeats):
                for receiver, objects in contenders:
                    try:
                        rate = once(sender, receiver, objects, count, bench.folder)
                    except Failed as failure:
                        bench.say(f"{receiver.name}, {count} associations of {sender.name}: {failure}")
                        rate = None
                    key = (sender.name, receiver.name, count)
                    rates.setdefault(key, []).append(rate)
                    bench.say(
                        f"ingest {turn + 1}/{bench.repeats}: {sender.name} × {count} → {receiver.name}: "
                        + (f"{rate:.1f}/s" if rate else "failed")
                    )
    return [
        {"sender": sender, "receiver": receiver, "associations": count, "rate": Sample.of(values).plain()}
        for (sender, receiver, count), values in rates.items()
    ]


def once(sender, receiver, objects, associations, folder):
    """Objects a second of one run, from before the senders start until the last has ended."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        shares = objects.shares(associations, pathlib.Path(scratch) / "send")
        receiver.start(scratch)
        try:
            _, seconds = senders.send(sender, receiver.port, shares)
            objects.verify(receiver.files())
        finally:
            receiver.stop()
    return len(objects) / seconds
