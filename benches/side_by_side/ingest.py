"""Objects a second into each receiver, from each sender, over 1, 4 and 16 associations."""

import pathlib
import tempfile

from . import machine, receivers, senders
from .objects import make_objects
from .processes import Failed
from .statistics import Sample

ASSOCIATIONS = (1, 4, 16)

# A run of a slow pair (both sides wait for the other's ACK) is cut to so many seconds, by sending fewer objects.
RUN_SECONDS = 6
FEWEST = 48


def measure(bench):
    """Rows of {sender, receiver, associations, rate, objects}; every run's objects are verified before it counts."""
    machine.spread(bench.folder)
    stored = make_objects(bench.program, bench.folder / "stored", bench.objects, scored=False)
    heads = make_objects(bench.program, bench.folder / "heads", bench.objects, scored=True)
    scoring = receivers.Triaged(bench.tools, bench.program)
    scoring.name = "triaged, scoring meanwhile"
    contenders = [(receivers.Triaged(bench.tools, bench.program), stored), (scoring, heads)]
    contenders += [(peer, stored) for peer in bench.present(receivers.PEERS)]
    rates, sent = {}, {}
    for sender in bench.present(bench.senders):
        for count in ASSOCIATIONS:
            # Whoever is slowed by something else on the machine, the others are too: the receivers take turns. The first
            # turn only tells how many objects a run of this pair can have.
            for turn in range(bench.repeats + 1):
                for receiver, objects in contenders:
                    key = (sender.name, receiver.name, count)
                    try:
                        number = sent.get(key) or min(FEWEST, len(objects))
                        rate = once(sender, receiver, objects.first(number), count, bench.folder)
                    except Failed as failure:
                        bench.say(f"{receiver.name}, {count} associations of {sender.name}: {failure}")
                        rate = None
                    if turn == 0:
                        sent[key] = min(len(objects), max(FEWEST, int((rate or 0) * RUN_SECONDS)))
                        continue
                    rates.setdefault(key, []).append(rate)
                    bench.say(
                        f"ingest {turn}/{bench.repeats}: {sender.name} × {count} → {receiver.name}, {number} objects: "
                        + (f"{rate:.1f}/s" if rate else "failed")
                    )
    return [
        {"sender": sender, "receiver": receiver, "associations": count, "rate": Sample.of(rates[key]).plain(), "objects": sent[key]}
        for key in rates
        for (sender, receiver, count) in [key]
    ]


def once(sender, receiver, objects, associations, folder):
    """Objects a second of one run, from before the senders start until the last has ended."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        shares = objects.shares(associations, pathlib.Path(scratch) / "send")
        receiver.start(scratch)
        try:
            machine.warm_memory()
            _, seconds = senders.send(sender, receiver.port, shares)
            objects.verify(receiver.files())
        finally:
            receiver.stop()
    return len(objects) / seconds
