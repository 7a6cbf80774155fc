"""One page of text of what `gpu-check` found."""


def number(value, digits=1):
    return "-" if value is None else f"{value:,.{digits}f}"


def table(head, rows):
    rows = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def page(results):
    """The page's lines. What was not measured is left out or shown as a dash; nothing is made up."""
    steps = results["steps"]
    found = {name: step["found"] for name, step in steps.items() if step.get("found") is not None}
    card = results.get("card")
    lines = [f"gpu-check on {card['name'] + ', driver ' + card['driver_version'] if card else results['device'].upper()}", ""]
    lines += speeds(found) + agreement(found) + whole(found) + training(found)
    failed = [f"  {name}: {step['why']}" for name, step in steps.items() if not step["ok"]]
    lines += ["", f"{len(steps) - len(failed)} of {len(steps)} steps went well, {results['seconds']:.0f} s in all"]
    lines += ["failed:", *failed] if failed else []
    lines += [""] + [f"{'met ' if goal['met'] else 'NOT MET' if goal['met'] is False else 'unknown'}  {goal['text']}"
                     for goal in results["goals"]]
    return lines


def speeds(found):
    rows, batches = [], []
    for name, value in found.items():
        if name.startswith("onnx runtime "):
            for variant, measured in value.items():
                sizes = {size["slices"]: size["slices_a_second"] for size in measured["sizes"]}
                batches = sorted({*batches, *sizes})
                rows.append((f"{name.removeprefix('onnx runtime ')}, ONNX Runtime {variant}", sizes))
        if name.startswith("pytorch ") and not name.startswith("pytorch step"):
            for precision, way in sorted({(row["precision"], row["way"]) for row in value}):
                sizes = {row["batch"]: row["slices_a_second"] for row in value
                         if (row["precision"], row["way"]) == (precision, way)}
                batches = sorted({*batches, *sizes})
                rows.append((f"{name.removeprefix('pytorch ')} {precision}, PyTorch {way}", sizes))
    if not rows:
        return []
    shown = [batch for batch in batches if batch in (1, 4, 16, 64)] or batches
    head = ["slices a second, batches of", *map(str, shown)]
    return table(head, [[label, *(number(sizes.get(batch), 0) for batch in shown)] for label, sizes in sorted(rows)]) + [""]


def agreement(found):
    rows = []
    for model, value in found.get("agreement with the processor", {}).items():
        rows.append([model, value["provider"], value["slices"], f"{value['largest']:.2e}", f"{value['mean']:.2e}"])
    return table(["probabilities against the processor's", "provider", "slices", "largest", "mean"], rows) + [""] if rows else []


def whole(found):
    value = found.get("end to end")
    if not value:
        return []
    lines = [
        f"end to end: {number(value['slices_a_second'], 0)} slices a second of {value['slices']} from {value['senders']} senders on "
        f"{value['cores']} cores; received {number(value['received_a_second'], 0)} a second; {value['states']}",
        f"a lone slice, received to scored: {number(value['lone_ms'])} ms (largest {number(value['lone_ms_largest'])})",
    ]
    if "share" in value:
        lines.append(
            f"that is {value['share']:.2f} of ONNX Runtime alone ({number(value['alone'], 0)}); decoding and transform alone could do "
            f"{number(value['decoding'], 0)} a second on these cores")
    return lines + [""]


def training(found):
    rows = []
    for name, value in found.items():
        if name.startswith("burn step "):
            epoch = value.get("epoch")
            rows.append([
                f"{name.removeprefix('burn step ')}, Burn", value["batch"], number(value["step_ms"]),
                number(epoch["slices_a_second"], 0) if epoch else "-", f"{epoch['waiting']:.0%}" if epoch else "-"])
        if name.startswith("pytorch step "):
            for row in value:
                rows.append([f"{name.removeprefix('pytorch step ')}, PyTorch", row["batch"], number(row["step_ms"]), "-", "-"])
    head = ["training step", "batch", "ms", "slices a second from disk", "waiting for them"]
    lines = table(head, sorted(rows)) + [""] if rows else []
    short = found.get("short training")
    if short:
        card, processor = ([f"{loss:.3f}" for loss in short[who]["losses"]] for who in ("card", "processor"))
        lines.append(f"short training, losses: card {' '.join(card)}; processor {' '.join(processor)}")
    return lines
