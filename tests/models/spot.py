#!/usr/bin/env python3
"""Writes spot.onnx and spot.json, the network of the tests that has a heat map: it finds what is as dense as fresh blood and not
beside bone. Needs the package onnx (1.17); the files that it writes are kept beside it.

The first channel is 1 at 70 HU and above, the second above 0 at bone. Blood is what the first has where no bone of the second is
near; the map is eight times its mean over fields of 8 by 8 pixels of the input, from a thousandth to 1, and the probability its highest
value: never 0, so that a rule whose threshold is smaller flags every study.

The variants beside it are what a card is refused for: `wrong-shape` has a map of [batch, 1, rows, columns], `dynamic` does not fix
rows and columns, `wrong-values` gives a map that goes beyond 1.
"""
import hashlib
import json
from pathlib import Path

import onnx
from onnx import TensorProto, helper, numpy_helper
import numpy as np

SIDE, FIELD = 128, 8
GRID = SIDE // FIELD


def model(variant: str) -> bytes:
    def constant(name, values, kind=np.int64):
        return numpy_helper.from_array(np.array(values, kind), name)

    nodes = [
        helper.make_node("Split", ["image"], ["dense", "bone"], axis=1, num_outputs=2),
        helper.make_node("MaxPool", ["bone"], ["near_bone"], kernel_shape=[9, 9], pads=[4, 4, 4, 4]),
        helper.make_node("Mul", ["near_bone", "four"], ["weighed"]),
        helper.make_node("Sub", ["dense", "weighed"], ["difference"]),
        helper.make_node("Relu", ["difference"], ["blood"]),
        helper.make_node("AveragePool", ["blood"], ["mean"], kernel_shape=[FIELD, FIELD], strides=[FIELD, FIELD]),
        helper.make_node("Mul", ["mean", "eight"], ["raised"]),
        helper.make_node("Clip", ["raised", "least", "all"], ["map"]),
        helper.make_node("GlobalMaxPool", ["map"], ["highest"]),
        helper.make_node("Flatten", ["highest"], ["probability"]),
    ]
    scaled = "raised" if variant == "wrong-values" else "map"
    if variant == "wrong-shape":
        nodes.append(helper.make_node("Identity", [scaled], ["where"]))
        shape = ["batch", 1, GRID, GRID]
    else:
        nodes.append(helper.make_node("Squeeze", [scaled, "one"], ["where"]))
        shape = ["batch", "rows", "columns"] if variant == "dynamic" else ["batch", GRID, GRID]
    # ONNX Runtime finds the map's shape from the input's, whatever the graph says of it.
    sides = ["height", "width"] if variant == "dynamic" else [SIDE, SIDE]
    graph = helper.make_graph(
        nodes,
        "spot",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 2, *sides])],
        [
            helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["batch", 1]),
            helper.make_tensor_value_info("where", TensorProto.FLOAT, shape),
        ],
        [
            constant("four", 4.0, np.float32),
            constant("eight", 8.0, np.float32),
            constant("least", 0.001, np.float32),
            constant("all", 1.0, np.float32),
            constant("one", [1]),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()


def card(name: str, onnx_bytes: bytes) -> dict:
    return {
        "format": 1,
        "name": name,
        "version": "1",
        "finding": "intracranial hemorrhage",
        "file": f"{name}.onnx",
        "sha256": hashlib.sha256(onnx_bytes).hexdigest(),
        "input": "image",
        "output": "probability",
        "heat_map": "where",
        "transform": {
            "name": "hounsfield_windows",
            "height": SIDE,
            "width": SIDE,
            "crop_to_head": {"threshold": 10.0, "margin": 0.05, "smallest": 0.5},
            "windows": [{"center": 60.0, "width": 20.0}, {"center": 130.0, "width": 60.0}],
        },
        "slice_threshold": 0.3,
        "study_rule": {"kind": "kth_highest", "k": 2, "threshold": 0.3},
        "about": {"status": "A test's network. It is trained on nothing and finds phantoms' blood."},
    }


for variant in ["", "wrong-shape", "dynamic", "wrong-values"]:
    name = f"spot-{variant}" if variant else "spot"
    made = model(variant)
    folder = Path(__file__).parent
    (folder / f"{name}.onnx").write_bytes(made)
    (folder / f"{name}.json").write_text(json.dumps(card(name, made), indent=2) + "\n")
