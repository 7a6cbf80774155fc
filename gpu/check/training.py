"""Burn's training step on the card, an epoch from disk, and a short training whose loss must fall as the CPU's does."""

import json
import pathlib

from limits import run


def data(program, folder, studies, slices, seconds):
    """Phantoms in the RSNA 2019 layout."""
    folder = pathlib.Path(folder)
    run([program, "phantoms", "--out", folder, "--studies", str(studies), "--slices", str(slices)], seconds)
    return folder


def step_time(program, recipe, device, seconds, batch=None, size=None, steps=20, folder=None, measure=20, epoch=15):
    """What `triaged-training step-time` measured."""
    command = [program, "step-time", "--recipe", recipe, "--device", device, "--steps", str(steps)]
    command += ["--seconds", str(measure), "--epoch-seconds", str(epoch)]
    for option, value in (("--batch", batch), ("--size", size), ("--data", folder)):
        if value is not None:
            command += [option, str(value)]
    return json.loads(run(command, seconds))


def fit(program, device, folder, out, seconds, recipe="m11", size=96, epochs=3, batch=16, balance=128):
    """The training losses of a short training from drawn weights, epoch by epoch."""
    out = pathlib.Path(out)
    run([
        program, "fit", "--data", folder, "--out", out, "--recipe", recipe, "--pretrained", "none", "--size", str(size),
        "--epochs", str(epochs), "--batch", str(batch), "--balance", str(balance), "--monitor", "last", "--test", "0", "--validation", "0",
        "--no-augment", "--device", device], seconds)
    state = json.loads((out / "state.json").read_text())
    return {"losses": [epoch["loss"] for epoch in state["epochs"]], "seconds": [e["seconds"] for e in state["epochs"]]}


def alike(card, processor, tolerance=0.15):
    """Whether both losses fall, and end within a share of each other."""
    first, last = processor["losses"][0], processor["losses"][-1]
    ours = card["losses"][-1]
    return {
        "falls_on_the_card": ours < card["losses"][0],
        "falls_on_the_processor": last < first,
        "last_difference": abs(ours - last) / max(abs(last), 1e-9),
        "alike": ours < card["losses"][0] and abs(ours - last) <= tolerance * max(abs(last), 0.1),
    }
