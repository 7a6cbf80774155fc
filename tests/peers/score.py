"""Scores DICOM files with ONNX Runtime from Python: a second, independent way from object to probability.

Arguments: the model card, then the files. Prints `SOP_INSTANCE_UID PROBABILITY` a file.
"""

import json
import sys
from pathlib import Path

import numpy
import onnxruntime
import pydicom

card_path = Path(sys.argv[1])
card = json.loads(card_path.read_text())
session = onnxruntime.InferenceSession(str(card_path.parent / card["file"]), providers=["CPUExecutionProvider"])
transform = card["transform"]

for path in sys.argv[2:]:
    one = pydicom.dcmread(path)
    stored = one.pixel_array.astype(numpy.float64)
    assert stored.shape == (transform["height"], transform["width"]), "this reference does not resample"
    if transform["name"] == "stored_values":
        channels = [stored]
    else:
        hounsfield = stored * float(one.get("RescaleSlope", 1)) + float(one.get("RescaleIntercept", 0))
        if "PixelPaddingValue" in one:
            hounsfield[stored == one.PixelPaddingValue] = -1024
        channels = [
            numpy.clip((hounsfield - (w["center"] - w["width"] / 2)) / w["width"], 0, 1) for w in transform["windows"]
        ]
        if normalization := transform.get("normalization"):
            channels = [(c - normalization["mean"]) / normalization["deviation"] for c in channels]
    tensor = numpy.stack(channels)[None].astype(numpy.float32)
    (probability,) = session.run([card["output"]], {card["input"]: tensor})
    print(one.SOPInstanceUID, float(probability.reshape(-1)[0]))
