"""What is wanted of a card, and whether what was found meets it."""

# Of float32 probabilities against the processor's, end to end against ONNX Runtime alone, and Burn's step against PyTorch's.
PARITY_FP32 = 1e-3
# Half precision: 0.024 was the most that rounding alone moved on a processor (models/m11-fp16.json, about.half).
PARITY_FP16 = 5e-2
END_TO_END = 0.95
BURN_STEP = 1.2


def goal(text, value, met):
    return {"text": text, "value": value, "met": met}


def goals(found):
    """Each goal with its value; `met` is None where it was not measured."""
    made = []
    for model, value in found.get("agreement with the processor", {}).items():
        limit = PARITY_FP16 if "fp16" in model else PARITY_FP32
        text = f"{model}: probabilities within {limit:g} of the processor's: {value['largest']:.2e}"
        made.append(goal(text, value["largest"], value["largest"] <= limit))
    whole = found.get("end to end")
    if whole and "share" in whole:
        # Where decoding is the narrower way, that is the bound.
        bound = min(whole["alone"], whole["decoding"])
        share = whole["slices_a_second"] / bound
        by = "decoding" if whole["decoding"] < whole["alone"] else "ONNX Runtime alone"
        made.append(goal(f"end to end at least {END_TO_END} of {by}: {share:.2f}", share, share >= END_TO_END))
    else:
        made.append(goal(f"end to end at least {END_TO_END} of ONNX Runtime alone", None, None))
    made += peers(found)
    for recipe in ("m11", "m10"):
        ours, theirs = found.get(f"burn step {recipe}"), found.get(f"pytorch step {recipe}")
        text = f"{recipe}: Burn's step at most {BURN_STEP} times PyTorch's eager one"
        if ours and theirs:
            ratio = ours["step_ms"] / theirs[0]["step_ms"]
            made.append(goal(f"{text}: {ratio:.2f}", ratio, ratio <= BURN_STEP))
        else:
            made.append(goal(text, None, None))
    short = found.get("short training")
    made.append(goal("a short training's loss falls as the processor's", None, short["alike"]["alike"] if short else None))
    return made


def peers(found):
    """ONNX Runtime's fastest way against PyTorch compiled, at the batches that both ran."""
    made = []
    for model in ("m11", "m10"):
        for precision, ours in (("fp32", f"onnx runtime {model}"), ("fp16", f"onnx runtime {model}-fp16")):
            text = f"{model} {precision}: ONNX Runtime not slower than PyTorch compiled"
            rows = [row for row in found.get(f"pytorch {model}", [])
                    if (row["precision"], row["way"]) == (precision, "compiled")]
            ratios = []
            for row in rows:
                # Lossy ways of multiplying are no answer to a float32 peer.
                speeds = [size["slices_a_second"] for variant, measured in found.get(ours, {}).items() if "tf32" not in variant
                          for size in measured["sizes"] if size["slices"] == row["batch"]]
                if speeds:
                    ratios.append((row["batch"], max(speeds) / row["slices_a_second"]))
            if ratios:
                shown = ", ".join(f"{ratio:.2f} at {batch}" for batch, ratio in ratios)
                worst = min(ratio for _, ratio in ratios)
                made.append(goal(f"{text}: {shown}", worst, worst >= 1.0))
            else:
                made.append(goal(text, None, None))
    return made
