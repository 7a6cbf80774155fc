"""Reads the series of a node's database with the card's sequence network, in ONNX Runtime from Python: a second, independent way from the
slices' probabilities to the score of a series. All slices of a series must have one orientation.

Arguments: the model card, the database. Prints `SERIES_UID SCORE POSITIVE_BINS BINS` a series with a scored slice.
"""

import json
import math
import sqlite3
import sys
from pathlib import Path

import numpy
import onnxruntime

SAME_PLACE_MM = 0.1
MOST_EMPTY = 16

card_path = Path(sys.argv[1])
sequence = json.loads(card_path.read_text())["sequence"]
session = onnxruntime.InferenceSession(
    str(card_path.parent / sequence["file"]), providers=["CPUExecutionProvider"]
)
database = sqlite3.connect(f"file:{sys.argv[2]}?mode=ro", uri=True)


def bins(slices):
    """The bins of a series: of each a logit, or None where it is empty."""
    slices = sorted(slices, key=lambda s: (s[0] is None, s[0] or 0.0, s[2] or 0, s[3]))
    known = [position for position, *_ in slices if position is not None]
    made, before = [], None
    for position, probability, _, _ in slices:
        if position is None:
            empty = 0 if before in (None, "none") else MOST_EMPTY
            here = "none"
        else:
            index = math.floor((position - known[0]) / sequence["spacing_mm"] + 0.5)
            here = (position, index)
            if before is None:
                empty = 0
            elif position - before[0] < SAME_PLACE_MM or index <= before[1]:
                empty = None
            else:
                empty = min(index - before[1] - 1, MOST_EMPTY)
        if empty is not None:
            made += [None] * (empty + 1)
            before = here
        if probability is not None:
            logit = math.inf if probability == 1 else -math.inf if probability == 0 else math.log(
                probability / (1 - probability)
            )
            logit = min(max(logit, -8.0), 8.0)
            made[-1] = logit if made[-1] is None else max(made[-1], logit)
    return made


for (series,) in database.execute(
    "SELECT DISTINCT series_uid FROM slice_results WHERE state = 'scored' ORDER BY series_uid"
):
    slices = database.execute(
        "SELECT position, probability, instance_number, frame FROM slice_results"
        " WHERE series_uid = ? AND state <> 'ineligible'",
        (series,),
    ).fetchall()
    made = bins(slices)
    present = numpy.array([logit is not None for logit in made])
    logits = numpy.array([logit or 0.0 for logit in made], numpy.float32)
    values = numpy.stack([logits, present.astype(numpy.float32)])[None]
    each, whole = session.run([sequence["slice_output"], sequence["series_output"]], {sequence["input"]: values})
    positive = int((present & (each[0].astype(float) >= sequence["slice_threshold"])).sum())
    print(series, float(whole.reshape(-1)[0]), positive, len(made))
