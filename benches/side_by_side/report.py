"""The tables of results.md: ratios first, absolute figures beside them."""

from . import receivers

DURABLE = {kind.name: kind.durable for kind in receivers.PEERS} | {"triaged": True, "triaged, scoring meanwhile": True}
# What the project wants of one run: (associations, peer, times).
WANTED = [(1, "DCMTK storescp", 10), (1, "dicom-rs storescp", 2), (4, "DCMTK storescp --fork", 8), (4, "dicom-rs storescp", 2)]


def markdown(results):
    machine = results["machine"]
    out = [
        "# Measured side by side",
        "",
        f"By `make bench` on {machine['processor']}, {machine['cores']} cores (shared by senders, receivers and everything else), "
        f"{machine['memory_gib']} GiB, Linux {machine['kernel']}. Ratios carry over between machines; absolute figures do not. "
        "A figure is the median of its runs, in brackets the lowest and the highest.",
    ]
    for name, section in SECTIONS.items():
        part = results["parts"].get(name)
        if part:
            out += ["", *section(part["figures"], results["parts"]), "", f"_{part['measured_at']}, {part['repeats']} runs each."]
            versions = "; ".join(sorted({version for version in part["versions"].values() if version}))
            missing = ", ".join(part["missing"])
            out[-1] += f" {versions}." * bool(versions) + f" Not installed, left out: {missing}." * bool(missing) + "_"
    return "\n".join(out) + "\n"


def number(value):
    if value is None:
        return "–"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def spread(sample):
    if sample["median"] is None:
        return "failed"
    failed = f", {sample['failed']} failed" if sample["failed"] else ""
    return f"{number(sample['median'])} ({number(sample['low'])}–{number(sample['high'])}{failed})"


def table(head, rows):
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(row) + " |" for row in rows)]


def disk(rows, parts):
    return [
        "## The disk",
        "",
        "Files of an object's size, each written, synced, renamed, its folder synced, and nothing else: what a receiver whose success "
        "means stored can reach on this disk, a file at a time.",
        "",
        *table(["writers", "synced files/s"], [[str(row["writers"]), spread(row["rate"])] for row in rows]),
    ]


def ingest(rows, parts):
    out = ["## Ingest", "", "CT objects of 0.5 MB a second, every run's objects verified by UID and pixel digest afterwards."]
    sent = sorted({row["objects"] for row in rows if "objects" in row})
    if len(sent) > 1:
        out[-1] += f" A run is of {sent[-1]} objects, fewer (down to {sent[0]}) where the pair of sender and receiver is slow."
    by = {(row["sender"], row["receiver"], row["associations"]): row["rate"] for row in rows}
    receivers_ = list(dict.fromkeys(row["receiver"] for row in rows))
    counts = sorted({row["associations"] for row in rows})
    for sender in dict.fromkeys(row["sender"] for row in rows):
        out += ["", f"### From {sender}", ""]
        body = []
        for receiver in receivers_:
            line = [receiver, "yes" if DURABLE.get(receiver) else "no"]
            for count in counts:
                rate, ours = by[sender, receiver, count], by[sender, "triaged", count]
                line.append(spread(rate))
                good = rate["median"] and ours["median"]
                line.append("1" if receiver == "triaged" else f"{ours['median'] / rate['median']:.1f}" if good else "–")
            body.append(line)
        head = ["receiver", "durable at success"]
        for count in counts:
            head += [f"{count} assoc.", "triaged is × faster"]
        out += table(head, body)
        wishes = []
        for count, peer, times in WANTED:
            ours, theirs = by.get((sender, "triaged", count)), by.get((sender, peer, count))
            if ours and theirs and ours["median"] and theirs["median"]:
                ratio = ours["median"] / theirs["median"]
                wishes.append(f"{ratio:.1f} × {peer} at {count} (wanted {times}: {'reached' if ratio >= times else 'missed'})")
        if wishes:
            out += ["", "; ".join(wishes) + "."]
    if "disk" in parts:
        bound = {row["writers"]: row["rate"]["median"] for row in parts["disk"]["figures"]}
        first = next(iter(dict.fromkeys(row["sender"] for row in rows)))
        shares = [
            f"{by[first, 'triaged', count]['median'] / bound[count]:.2f} at {count}"
            for count in counts
            if count in bound and by[first, "triaged", count]["median"]
        ]
        out += ["", f"Of the disk's own rate of synced files, from {first}: {', '.join(shares)} associations."]
    return out


def end_to_end(figures, parts):
    return [
        "## End to end",
        "",
        f"{figures['slices']} slices over one association, from the sender's start to the last score, against ONNX Runtime "
        f"{figures['onnxruntime_version']} alone (Python, the same tensors in memory, the same threads), on the CPU.",
        "",
        *table(
            ["", "slices/s"],
            [
                ["triaged, end to end", spread(figures["node"])],
                ["ONNX Runtime alone", spread(figures["onnxruntime"])],
                ["ratio", spread(figures["ratio"])],
            ],
        ),
        "",
        f"Largest difference between a probability in the ledger and Python's: {figures['largest_difference']:.1e}.",
    ]


def latency(figures, parts):
    rows = [
        [
            str(row["at_once"]),
            "on" if row["provisional"] else "off",
            f"{row['alerted']} of {row['studies']}",
            number(row["p50"]),
            number(row["p95"]),
            number(row["p50_after_last_score"]),
        ]
        for row in figures["rows"]
    ]
    return [
        "## From the last slice to the alert",
        "",
        f"Seconds from a study's last success to its alert at the webhook; bleeding phantoms of {figures['slices']} slices, "
        f"`triage.quiet_seconds = {figures['quiet_seconds']}`. Below zero: the evidence sufficed before the last slice came. "
        "Without provisional alerts the quiet time is part of it.",
        "",
        *table(["studies at once", "provisional alerts", "alerted", "p50", "p95", "p50 after the last score"], rows),
    ]


def footprint(figures, parts):
    rows = [
        [str(row["associations"]), str(row["objects"]), str(row["idle"]), str(row["peak_at_end_of_sending"]), str(row["peak"])]
        for row in figures["memory"]
    ]
    return [
        "## Memory and start",
        "",
        "MiB resident, on the CPU, scoring included.",
        "",
        *table(["associations", "objects", "idle", "peak while sending", "peak until all are scored"], rows),
        "",
        f"From start to ready, model loaded and warmed up: {spread(figures['start'])} s.",
    ]


def scale(rows, parts):
    empty = rows[0]["ingest"]["median"]
    body = [
        [
            f"{row['instances']:,}",
            str(row["database_mib"]),
            number(row["start_seconds"]),
            spread(row["ingest"]),
            f"{row['ingest']['median'] / empty:.2f}",
            spread(row["page_ms"]),
            spread(row["api_ms"]),
            spread(row["sql_ms"]),
        ]
        for row in rows
    ]
    head = ["instances", "database MiB", "start s", "objects/s, 4 assoc.", "of empty", "page ms", "API ms", "SQL: not read yet, ms"]
    return ["## A ledger of years", "", *table(head, body)]


SECTIONS = {
    "ingest": ingest,
    "disk": disk,
    "end-to-end": end_to_end,
    "latency": latency,
    "footprint": footprint,
    "scale": scale,
}
