"""The tables as pictures: SVG, beside results.md."""

import matplotlib

matplotlib.use("svg")
# The same figures give the same file.
matplotlib.rcParams["svg.hashsalt"] = "triaged"

from matplotlib import pyplot  # noqa: E402


def draw(results, out):
    """Draws what was measured; (title, file name) of each picture."""
    drawn = []
    parts = results["parts"]
    if "ingest" in parts:
        rows = parts["ingest"]["figures"]
        for number, sender in enumerate(dict.fromkeys(row["sender"] for row in rows)):
            disk = parts["disk"]["figures"] if "disk" in parts else []
            drawn.append(ingest([row for row in rows if row["sender"] == sender], sender, disk, out / f"ingest-{number + 1}.svg"))
    if "latency" in parts:
        drawn.append(latency(parts["latency"]["figures"], out / "latency.svg"))
    return drawn


def ingest(rows, sender, disk, file):
    names = list(dict.fromkeys(row["receiver"] for row in rows))
    counts = sorted({row["associations"] for row in rows})
    figure, axes = pyplot.subplots(figsize=(9, 0.5 + 0.75 * len(names)))
    height = 0.8 / len(counts)
    for index, count in enumerate(counts):
        for place, name in enumerate(names):
            rate = next(row["rate"] for row in rows if row["receiver"] == name and row["associations"] == count)
            if rate["median"] is None:
                continue
            y = place + (index - (len(counts) - 1) / 2) * height
            error = [[rate["median"] - rate["low"]], [rate["high"] - rate["median"]]]
            axes.barh(y, rate["median"], height * 0.9, xerr=error, color=f"C{index}", ecolor="#555555", capsize=2)
            axes.text(rate["high"], y, f" {rate['median']:.0f}", va="center", fontsize=8)
    for index, count in enumerate(counts):
        axes.barh([0], [0], color=f"C{index}", label=f"{count} association" + "s" * (count > 1))
        bound = next((row["rate"]["median"] for row in disk if row["writers"] == count), None)
        if bound:
            axes.axvline(bound, color=f"C{index}", linestyle=":", linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("objects of 0.5 MB a second (dotted: what the disk syncs with as many writers)")
    axes.set_title(f"C-STORE from {sender}")
    axes.legend(loc="lower right")
    return save(figure, file, f"Ingest from {sender}")


def latency(figures, file):
    figure, axes = pyplot.subplots(figsize=(7, 3))
    names = [
        f"{row['at_once']} at once, " + ("provisional alerts" if row["provisional"] else "complete studies only")
        for row in figures["rows"]
    ]
    for place, row in enumerate(figures["rows"]):
        if row["p50"] is not None:
            axes.plot([row["p50"], row["p95"]], [place, place], color="C0", linewidth=3)
            axes.plot(row["p50"], place, "o", color="C0")
    axes.axvline(0, color="#555555", linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("seconds from the last slice's success to the alert (p50 to p95)")
    return save(figure, file, "From the last slice to the alert")


def save(figure, file, title):
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
    return title, file.name
