"""Scores DICOM files with ONNX Runtime from Python: a second, independent way from object to probability.

Arguments: the model card, then the files. Prints `SOP_INSTANCE_UID PROBABILITY` a file.
"""

import json
import sys
from pathlib import Path

import onnxruntime
import pydicom
from reference_input import tensor

card_path = Path(sys.argv[1])
card = json.loads(card_path.read_text())
session = onnxruntime.InferenceSession(str(card_path.parent / card["file"]), providers=["CPUExecutionProvider"])

for path in sys.argv[2:]:
    (probability,) = session.run([card["output"]], {card["input"]: tensor(card, path)})
    uid = pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID
    print(uid, float(probability.reshape(-1)[0]))
