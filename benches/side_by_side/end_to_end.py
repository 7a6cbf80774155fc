"""From the first byte of a study to its last score, against ONNX Runtime alone on the same tensors."""

import json
import pathlib
import tempfile
import time

import onnxruntime
import pydicom
from reference_input import tensor

from . import receivers, senders
from .objects import make_objects
from .processes import Failed, wait
from .statistics import Sample

SCORING_SECONDS = 600


def measure(bench):
    """{"node": slices a second, "onnxruntime": slices a second}, alternating, on the CPU, every thread the default."""
    slices = bench.slices
    objects = make_objects(bench.program, bench.folder / "scored", slices, scored=True)
    card_path = pathlib.Path(bench.card)
    card = json.loads(card_path.read_text())
    tensors = [tensor(card, file) for file in objects.files]
    session = onnxruntime.InferenceSession(str(card_path.parent / card["file"]), providers=["CPUExecutionProvider"])
    sender = bench.present(senders.ALL)[0]
    node_rates, alone_rates, largest = [], [], 0.0
    for turn in range(bench.repeats):
        rate, probabilities = through_the_node(bench, sender, objects)
        begin = time.monotonic()
        alone = [float(session.run([card["output"]], {card["input"]: one})[0].reshape(-1)[0]) for one in tensors]
        alone_rates.append(len(tensors) / (time.monotonic() - begin))
        node_rates.append(rate)
        expected = {str(pydicom.dcmread(f, stop_before_pixels=True).SOPInstanceUID): p for f, p in zip(objects.files, alone)}
        if expected.keys() != probabilities.keys():
            raise Failed("the node's scored slices are not those that were sent")
        largest = max(largest, max(abs(expected[uid] - probabilities[uid]) for uid in expected))
        bench.say(f"end to end {turn + 1}/{bench.repeats}: node {rate:.1f}/s, ONNX Runtime alone {alone_rates[-1]:.1f}/s")
    ratios = [node / alone for node, alone in zip(node_rates, alone_rates)]
    return {
        "slices": slices,
        "node": Sample.of(node_rates).plain(),
        "onnxruntime": Sample.of(alone_rates).plain(),
        "ratio": Sample.of(ratios).plain(),
        "largest_difference": largest,
        "onnxruntime_version": onnxruntime.__version__,
    }


def through_the_node(bench, sender, objects):
    """Slices a second from the sender's start to the last score, and each slice's probability."""
    with tempfile.TemporaryDirectory(dir=bench.folder) as scratch:
        node = receivers.Triaged(bench.tools, bench.program, TRIAGED__INFERENCE__DEVICE="cpu")
        shares = objects.shares(1, pathlib.Path(scratch) / "send")
        node.start(scratch)
        try:
            begin = time.time()
            senders.send(sender, node.port, shares)
            done = f"SELECT count(*) = {len(objects)} AND total(state = 'queued') = 0 FROM slice_results"
            wait("all slices to be scored", SCORING_SECONDS, lambda: node.ask(done)[0][0], pause=0.2)
            # The ledger's own time of the last score: what is asked too late here does not count.
            seconds = "SELECT (julianday(max(scored_at)) - 2440587.5) * 86400 FROM slice_results"
            end = node.ask(seconds)[0][0]
            probabilities = dict(node.ask("SELECT sop_uid, probability FROM slice_results WHERE state = 'scored'"))
        finally:
            node.stop()
    return len(objects) / (end - begin), probabilities
