"""Writes a PyTorch network as a model that triaged runs: the ONNX file and its card.

    pip install torch onnx
    python docs/examples/export_pytorch.py models/mine.json
    triaged check --model models/mine.json

The network here is a stand-in with random weights. Put yours in its place (timm's `efficientnet_b0` with `num_classes=1,
in_chans=1`, for instance), and your own thresholds: chosen on patients that it was not trained on.
"""

import hashlib
import json
import pathlib
import sys

import torch

SIDE = 256
# In Hounsfield units; each window is one channel.
WINDOWS = [{"center": 40.0, "width": 80.0}]


class Network(torch.nn.Module):
    """Gives logits, as networks do that are trained with `BCEWithLogitsLoss`."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(len(WINDOWS), 8, 3, stride=2, padding=1),
            torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Linear(8, 1),
        )

    def forward(self, images):
        return self.layers(images)


class Probability(torch.nn.Module):
    """The node takes probabilities, of shape [batch, 1]. Of a network with several outputs choose the one here."""

    def __init__(self, network, output=0):
        super().__init__()
        self.network, self.output = network, output

    def forward(self, images):
        return torch.sigmoid(self.network(images)[:, self.output : self.output + 1])


def main(card_path):
    model_path = card_path.with_suffix(".onnx")
    torch.onnx.export(
        Probability(Network()).eval(),
        torch.zeros(1, len(WINDOWS), SIDE, SIDE),
        model_path,
        input_names=["image"],
        output_names=["probability"],
        # The node scores several slices at once.
        dynamic_axes={"image": {0: "batch"}, "probability": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )
    card = {
        "format": 1,
        "name": card_path.stem,
        "version": "1",
        "finding": "intracranial hemorrhage",
        "file": model_path.name,
        "sha256": hashlib.sha256(model_path.read_bytes()).hexdigest(),
        "input": "image",
        "output": "probability",
        "transform": {
            "name": "hounsfield_windows",
            "height": SIDE,
            "width": SIDE,
            "crop_to_head": {"threshold": 10.0, "margin": 0.05, "smallest": 0.5},
            "windows": WINDOWS,
        },
        "slice_threshold": 0.5,
        "study_rule": {"kind": "top_k_mean", "k": 3, "threshold": 0.5},
        "about": {"intended_use": "an example with random weights"},
    }
    card_path.write_text(json.dumps(card, indent=2) + "\n")
    print(f"{card_path} and {model_path.name}")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
