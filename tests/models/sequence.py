#!/usr/bin/env python3
"""Writes spot-sequence.onnx and spot-sequence-fails.onnx, networks of the tests that read a whole series, and spot-sequence.json, the
card of spot.onnx with the first. Needs the package onnx (1.17) and spot.json; the files that it writes are kept beside it.

A bin's logit is the mean of its neighbours' with the weights 1, 2, 1, of those that are not empty; the series' probability is that of
the mean of the three highest, or of all where there are fewer. `fails` says so of series up to 35 bins, and of longer ones what is no
number.
"""
import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def model(fails: bool) -> bytes:
    def constant(name, values, kind=np.float32):
        return numpy_helper.from_array(np.array(values, kind), name)

    node = helper.make_node
    nodes = [
        node("Split", ["series"], ["logits", "present"], axis=1, num_outputs=2),
        node("Mul", ["logits", "present"], ["known"]),
        node("Conv", ["known", "kernel"], ["sum"], pads=[1, 1]),
        node("Conv", ["present", "kernel"], ["weight"], pads=[1, 1]),
        node("Max", ["weight", "least"], ["divisor"]),
        node("Div", ["sum", "divisor"], ["smooth"]),
        node("Sigmoid", ["smooth"], ["each"]),
        node("Mul", ["each", "present"], ["masked"]),
        node("Squeeze", ["masked", "axis_1"], ["bins"]),
        # Empty bins, and two more, lie far below all others and count as nothing.
        node("Sub", ["one", "present"], ["absent"]),
        node("Mul", ["absent", "far"], ["lowered"]),
        node("Sub", ["smooth", "lowered"], ["candidates"]),
        node("Concat", ["candidates", "two_more"], ["padded"], axis=2),
        node("TopK", ["padded", "three"], ["highest", "places"], axis=2),
        node("Greater", ["highest", "minus_1000"], ["is_there"]),
        node("Cast", ["is_there"], ["there"], to=TensorProto.FLOAT),
        node("Mul", ["highest", "there"], ["counted"]),
        node("ReduceSum", ["counted", "axis_2"], ["total"], keepdims=1),
        node("ReduceSum", ["there", "axis_2"], ["count"], keepdims=1),
        node("Div", ["total", "count"], ["mean"]),
        node("Sigmoid", ["mean"], ["probability"]),
        node("Squeeze", ["probability", "axis_2"], ["sound" if fails else "whole"]),
    ]
    if fails:
        nodes += [
            node("Shape", ["bins"], ["shape"]),
            node("Gather", ["shape", "second"], ["length"], axis=0),
            node("Cast", ["length"], ["real_length"], to=TensorProto.FLOAT),
            node("Sub", ["most", "real_length"], ["left"]),
            node("Sqrt", ["left"], ["root"]),
            node("Mul", ["root", "nothing"], ["zero_or_none"]),
            node("Add", ["sound", "zero_or_none"], ["whole"]),
        ]
    graph = helper.make_graph(
        nodes,
        "spot-sequence",
        [helper.make_tensor_value_info("series", TensorProto.FLOAT, [1, 2, "bins"])],
        [
            helper.make_tensor_value_info("bins", TensorProto.FLOAT, [1, "bins"]),
            helper.make_tensor_value_info("whole", TensorProto.FLOAT, [1, 1]),
        ],
        [
            constant("kernel", [[[1, 2, 1]]]),
            constant("least", 1e-6),
            constant("one", 1),
            constant("far", 1e4),
            constant("two_more", [[[-1e4, -1e4]]]),
            constant("minus_1000", -1000),
            constant("three", [3], np.int64),
            constant("axis_1", [1], np.int64),
            constant("axis_2", [2], np.int64),
            *([constant("second", [1], np.int64), constant("most", 35.5), constant("nothing", 0)] if fails else []),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()


folder = Path(__file__).parent
for name, fails in [("spot-sequence", False), ("spot-sequence-fails", True)]:
    (folder / f"{name}.onnx").write_bytes(model(fails))
card = json.loads((folder / "spot.json").read_text())
card["sequence"] = {
    "file": "spot-sequence.onnx",
    "sha256": hashlib.sha256((folder / "spot-sequence.onnx").read_bytes()).hexdigest(),
    "input": "series",
    "slice_output": "bins",
    "series_output": "whole",
    "spacing_mm": 5.0,
    "slice_threshold": 0.3,
    "threshold": 0.3,
}
card["name"] = "spot-sequence"
(folder / "spot-sequence.json").write_text(json.dumps(card, indent=2) + "\n")
