"""gpu-check: everything about a card that can be known in eight minutes, as JSON and a page of text.

    python3 gpu-check [--out FOLDER]            on a machine with an NVIDIA card, in the joined bundle
    python3 gpu-check --device cpu --tiny       the same steps on a processor, with little of each: tests the steps themselves

Exit codes: 0 every step went well; 1 a step failed or a goal was missed; 2 there is no card, or something to run is not there.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import end_to_end  # noqa: E402
import model  # noqa: E402
import report  # noqa: E402
import surroundings  # noqa: E402
import training  # noqa: E402
from goals import goals  # noqa: E402
from limits import Clock, Steps, Stopped, lines_of, run  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
MODELS = ("m11", "m11-fp16", "m10", "m10-fp16")


def arguments():
    # The bundle's root lies above gpu-check, a checkout's above gpu/check.
    root = HERE.parent
    parser = argparse.ArgumentParser(prog="gpu-check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=pathlib.Path, default=root / "bin" / "triaged")
    parser.add_argument("--training-program", type=pathlib.Path, default=root / "bin" / "triaged-training")
    parser.add_argument("--models", type=pathlib.Path, default=root / "bin" / "models", help="folder of the models' cards")
    parser.add_argument("--slices", type=pathlib.Path, default=root / "slices", help="DICOM slices that the model is measured on")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("gpu-check-results"))
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--seconds", type=float, default=480.0, help="for all steps together")
    parser.add_argument("--only", default="", help="steps whose names contain one of these words, separated by commas")
    parser.add_argument("--tiny", action="store_true", help="little of everything")
    return parser.parse_args()


def sized(tiny):
    """How much of each is measured."""
    if tiny:
        return {
            "models": ["m11"], "variants": ["plain"], "batch": 2, "batches": "1,2", "measure": 0.2, "count": 4, "studies": 2,
            "slices": 8, "lone": 2, "recipes": ["m11"], "train_batch": 2, "train_size": 32, "steps": 2, "step_seconds": 5,
            "epoch_seconds": 5, "fit": {"size": 32, "epochs": 2, "batch": 4, "balance": 8}, "fit_data": (4, 6), "epoch_data": (2, 6)}
    return {
        "models": MODELS, "variants": list(model.VARIANTS), "batch": 64, "batches": "1,4,16,64", "measure": 2.0, "count": 128,
        "studies": 40, "slices": 60, "lone": 15, "recipes": ["m11", "m10"], "train_batch": 16, "train_size": None, "steps": 30,
        "step_seconds": 10, "epoch_seconds": 15, "fit": {}, "fit_data": (16, 12), "epoch_data": (40, 30)}


class Check:
    """The steps, and what they share."""

    def __init__(self, args, scratch):
        self.args, self.size, self.scratch = args, sized(args.tiny), pathlib.Path(scratch)
        self.steps = Steps(Clock(args.seconds))
        self.only = [word for word in args.only.split(",") if word]
        self.best = {}

    def step(self, name, limit, work):
        if not self.only or any(word in name for word in self.only):
            # A machine that runs tests may do much else meanwhile, and is slower than one with a card.
            return self.steps.step(name, 4 * limit if self.args.tiny else limit, work)
        return None

    def found(self, name):
        return self.steps.results.get(name, {}).get("found")

    def card_of(self, name):
        return self.args.models / f"{name}.json"

    def models(self):
        """Those that are there, in the order of what matters most."""
        return [name for name in self.size["models"] if self.card_of(name).is_file()]

    def all(self):
        device = self.args.device
        self.step("libraries", 40, self.libraries)
        self.step("agreement with the processor", 90, self.agreement)
        for name in self.models():
            self.step(f"onnx runtime {name}", 60, lambda seconds, name=name: self.variants(name, seconds))
        self.step("end to end", 75, self.end_to_end)
        has_torch = importlib.util.find_spec("torch") and importlib.util.find_spec("onnx")
        recipes = self.size["recipes"]
        for recipe in recipes:
            self.step(f"burn step {recipe}", 90, lambda seconds, recipe=recipe: self.burn_step(recipe, seconds))
            if has_torch and self.card_of(recipe).is_file():
                self.step(f"pytorch step {recipe}", 30, lambda seconds, recipe=recipe: self.peer("train", recipe, seconds))
        if has_torch:
            for name in [name for name in self.models() if "fp16" not in name]:
                self.step(f"pytorch {name}", 80, lambda seconds, name=name: self.peer("infer", name, seconds))
        else:
            print("SKIP the comparison with PyTorch: torch or onnx is not installed", flush=True)
        self.step("short training", 90, self.short_training)
        self.step("memory", 20, lambda seconds: {"card_mib_used_after": surroundings.memory_used(), "device": device})

    def libraries(self, seconds):
        """What `triaged check` says; the node's other complaints (no web port, say) are no matter here."""
        variables = {"TRIAGED__INFERENCE__DEVICE": self.args.device, "TRIAGED__INFERENCE__MODEL": str(self.card_of("m11"))}
        variables["TRIAGED__DATA_DIR"] = str(self.scratch / "check")
        try:
            said = run([self.args.program, "check"], seconds, variables)
        except Stopped as stopped:
            said = stopped.said
            if not said:
                raise
        lines = [line for line in said.splitlines() if any(word in line for word in ("provider", "ONNX", "GPU"))]
        if any(line.startswith("FAIL") for line in lines):
            raise Stopped("; ".join(line for line in lines if line.startswith("FAIL")))
        return lines

    def agreement(self, seconds):
        """The card's probabilities against the processor's of the float32 model, on the same slices."""
        clock, result, references = Clock(seconds), {}, {}
        for name in self.models():
            reference = name.removesuffix("-fp16")
            if reference not in references:
                references[reference] = self.bench(reference, "cpu", 4, clock.left(), 0.05)
            found = self.bench(name, self.args.device, self.size["batch"], clock.left(), 0.05)
            if self.args.device == "cuda" and found["provider"] != "CUDAExecutionProvider":
                raise Stopped(f"{name} ran on {found['provider']}")
            result[name] = {"provider": found["provider"], **model.difference(found, references[reference])}
        return result

    def bench(self, name, device, batch, seconds, measure, options=()):
        return model.bench(
            self.args.program, self.args.slices, self.card_of(name), device, seconds, batch, measure, options, self.size["count"])

    def variants(self, name, seconds):
        clock, measured, failed = Clock(seconds), {}, []
        for variant in self.size["variants"]:
            try:
                options = model.VARIANTS[variant] if self.args.device == "cuda" else []
                found = self.bench(name, self.args.device, self.size["batch"], clock.left(), self.size["measure"], options)
                measured[variant] = model.brief(found)
            except Stopped as stopped:
                failed.append(f"{variant}: {stopped}")
        exact = {variant: found for variant, found in measured.items() if "tf32" not in variant}
        if exact:
            self.best[name] = model.fastest(exact, self.size["batch"])
        if failed:
            # The others' figures stand.
            stopped = Stopped("; ".join(failed))
            stopped.partial = measured
            raise stopped
        return measured

    def end_to_end(self, seconds):
        name = "m11-fp16" if "m11-fp16" in self.best else "m11"
        settings = {"TRIAGED__INFERENCE__DEVICE": self.args.device, "TRIAGED__INFERENCE__MODEL": self.card_of(name)}
        best = self.best.get(name, "")
        if self.args.device == "cuda":
            settings["TRIAGED__INFERENCE__CUDA__BINDING"] = "graph" if best == "graph" else "plain" if best == "plain" else "pinned"
            settings["TRIAGED__INFERENCE__CUDA__CHANNELS_LAST"] = str("channels last" in best).lower()
            settings["TRIAGED__INFERENCE__CUDA__LANES"] = 2 if "2 lanes" in best else 1
        found = end_to_end.measure(
            self.args.program, self.scratch / "end-to-end", self.size["studies"], self.size["slices"], settings, seconds,
            self.size["lone"])
        found.update(model=name, settings={key: str(value) for key, value in settings.items()})
        measured = (self.found(f"onnx runtime {name}") or {}).get(best)
        if measured:
            found["alone"] = max(size["slices_a_second"] for size in measured["sizes"])
            found["alone"] = max(found["alone"], measured["slices_a_second"])
            found["decoding"] = measured["decode"]["slices_a_second"]
            found["share"] = found["slices_a_second"] / found["alone"]
        return found

    def burn_step(self, recipe, seconds):
        clock = Clock(seconds)
        folder = self.scratch / "epoch"
        if not folder.exists():
            training.data(self.args.training_program, folder, *self.size["epoch_data"], clock.left())
        return training.step_time(
            self.args.training_program, recipe, self.args.device, clock.left(), self.size["train_batch"], self.size["train_size"],
            self.size["steps"], folder, self.size["step_seconds"], self.size["epoch_seconds"])

    def peer(self, what, name, seconds):
        command = [sys.executable, HERE / "peer.py", what, self.args.models / f"{name}.onnx", "--device", self.args.device]
        if what == "train":
            command += ["--batch", str(self.size["train_batch"]), "--seconds", str(self.size["step_seconds"] / 2)]
            return lines_of(run(command, seconds))
        command += ["--seconds", str(min(self.size["measure"], 0.4))]
        clock, rows, why = Clock(seconds), [], []
        # Eager first: it is quick; compiling takes many seconds for each batch, the largest first.
        ways = [("eager", self.size["batches"]), ("compiled", "64,16,1")]
        if self.args.device == "cpu":
            ways = [("eager", self.size["batches"])]
        for way, batches in ways:
            precisions = "fp16,fp32" if self.args.device == "cuda" else "fp32"
            try:
                rows += lines_of(run(
                    [*command, "--ways", way, "--batches", batches, "--precisions", precisions], clock.left()))
            except Stopped as stopped:
                rows += lines_of(stopped.said)
                why.append(f"{way}: {stopped}")
        if why:
            stopped = Stopped("; ".join(why))
            stopped.partial = rows
            raise stopped
        return rows

    def short_training(self, seconds):
        clock = Clock(seconds)
        folder = training.data(self.args.training_program, self.scratch / "fit", *self.size["fit_data"], clock.left())
        fits = {
            who: training.fit(
                self.args.training_program, device, folder, self.scratch / f"run-{who}", clock.left(), **self.size["fit"])
            for who, device in (("card", self.args.device), ("processor", "cpu"))}
        return {**fits, "alike": training.alike(fits["card"], fits["processor"])}


def main():
    args = arguments()
    card = surroundings.card()
    if args.device == "cuda" and card is None:
        print("gpu-check: there is no NVIDIA card here, or no driver (nvidia-smi does not answer)", file=sys.stderr)
        return 2
    for path in (args.program, args.training_program, args.models / "m11.json", args.slices):
        if not path.exists():
            print(f"gpu-check: {path} is not there: run it in a joined bundle (docs/gpu.md)", file=sys.stderr)
            return 2
    os.environ.update(surroundings.environment())
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as scratch:
        check = Check(args, scratch)
        check.all()
    steps = check.steps.results
    found = {name: step["found"] for name, step in steps.items() if step.get("found") is not None}
    results = {
        "card": card, "device": args.device, "library_path": os.environ.get("LD_LIBRARY_PATH"), "cuda_path": os.environ.get("CUDA_PATH"),
        "cores": os.cpu_count(), "seconds": time.monotonic() - began, "best": check.best, "steps": steps, "goals": goals(found)}
    page = "\n".join(report.page(results)) + "\n"
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "gpu-check.json").write_text(json.dumps(results, indent=1) + "\n")
    (args.out / "gpu-check.txt").write_text(page)
    print("\n" + page, flush=True)
    missed = [goal for goal in results["goals"] if goal["met"] is False]
    failed = [name for name, step in steps.items() if not step["ok"]]
    return 1 if failed or (missed and not args.tiny) else 0


if __name__ == "__main__":
    sys.exit(main())
