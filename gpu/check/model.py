"""The model in ONNX Runtime, run by the node's own code: `triaged bench-model`."""

import json

from limits import run

# Each name says what differs from the node's plain way; "graph" and several lanes exclude each other.
VARIANTS = {
    "plain": ["--binding", "plain"],
    "pinned": ["--binding", "pinned"],
    "graph": ["--binding", "graph"],
    "pinned, channels last": ["--binding", "pinned", "--channels-last"],
    "pinned, tf32": ["--binding", "pinned", "--tf32"],
    "pinned, 2 lanes": ["--binding", "pinned", "--lanes", "2"],
}


def bench(program, slices, model, device, seconds, batch, measure, options=(), count=None):
    """What `triaged bench-model` measured; `measure` is for how many seconds, `seconds` the limit."""
    command = [program, "bench-model", slices, "--model", model, "--device", device, "--batch", str(batch)]
    command += ["--seconds", str(measure), *options]
    if count is not None:
        command += ["--slices", str(count)]
    return json.loads(run(command, seconds))


def difference(found, reference):
    """The largest and the mean difference of two models' probabilities of the same slices."""
    pairs = list(zip(found["probabilities"], reference["probabilities"], strict=True))
    differences = [abs(a - b) for a, b in pairs]
    # A value that is not a number differs from everything.
    largest = max((d if d == d else float("inf") for d in differences), default=0.0)
    return {"slices": len(pairs), "largest": largest, "mean": sum(differences) / max(len(differences), 1)}


def fastest(measured, batch):
    """The name of the variant that scores batches of a size fastest in one lane, or in all where that is more."""

    def speed(name):
        sizes = [size["slices_a_second"] for size in measured[name]["sizes"] if size["slices"] == batch]
        whole = measured[name]["slices_a_second"] if measured[name]["batch"] == batch else 0.0
        return max(sizes + [whole])

    return max(measured, key=speed, default=None)


def brief(measured):
    """What is kept of a measurement: not the probabilities."""
    return {key: value for key, value in measured.items() if key != "probabilities"}
