"""The same networks in PyTorch on the same card: eager and compiled, float32 and float16, and a training step.

Run by `gpu-check` in a process of its own; writes a line of JSON for each thing measured, so that what was measured before
it is stopped is not lost.

    peer.py infer MODEL.onnx --batches 1,4,16,64 [--device cuda] [--seconds 0.5] [--ways eager,compiled] [--precisions fp32,fp16]
    peer.py train MODEL.onnx --batch 16 [--device cuda] [--seconds 5]
"""

import argparse
import json
import sys
import time

try:
    import onnx
    import torch
    from onnx import numpy_helper
    from torch import nn
except ImportError as error:
    sys.exit(f"peer: {error}; the comparison with PyTorch needs torch and onnx")


class FromOnnx(nn.Module):
    """A network of our exporter's operations, node by node, with its weights as parameters."""

    def __init__(self, path, training=False):
        super().__init__()
        graph = onnx.load(str(path)).graph
        self.input_name = graph.input[0].name
        self.shape = [dimension.dim_value for dimension in graph.input[0].type.tensor_type.shape.dim][1:]
        self.names = {}
        for number, tensor in enumerate(graph.initializer):
            value = torch.from_numpy(numpy_helper.to_array(tensor).copy()).float()
            # The bounds of a Clip are no weights.
            if value.dim() == 0:
                self.names[tensor.name] = float(value)
            else:
                setattr(self, f"weight_{number}", nn.Parameter(value))
                self.names[tensor.name] = f"weight_{number}"
        nodes = [node for node in graph.node if node.op_type != "Cast"]
        if training:
            nodes = nodes[:-1]  # Trained on logits.
        self.nodes = [(node.op_type, list(node.input), node.output[0], attributes(node)) for node in nodes]
        # Export folds each normalisation into its convolution; a training step has them apart.
        self.norms = nn.ModuleDict()
        if training and any(kind == "Clip" for kind, *_ in self.nodes):
            for kind, inputs, output, _ in self.nodes:
                if kind == "Conv":
                    filters = getattr(self, self.names[inputs[1]]).shape[0]
                    self.norms[output] = nn.BatchNorm2d(filters)

    def forward(self, image):
        values = {self.input_name: image}

        def value(name):
            known = self.names.get(name)
            if isinstance(known, str):
                return getattr(self, known)
            return known if known is not None else values[name]

        last = image
        for kind, inputs, output, attribute in self.nodes:
            # Batches are halved by casts in a half-precision file; here the whole network has one precision.
            arguments = [value(name.removesuffix("_half").removesuffix("_float")) for name in inputs]
            if output in self.norms:
                last = self.norms[output](conv(attribute, *arguments[:2]))
            else:
                last = OPERATIONS[kind](attribute, *arguments)
            values[output] = last
        return last


def attributes(node):
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def conv(attribute, image, weight, bias=None):
    top, left, bottom, right = attribute.get("pads", [0, 0, 0, 0])
    if (top, left) == (bottom, right):
        padding = (top, left)
    else:
        image, padding = nn.functional.pad(image, (left, right, top, bottom)), 0
    return nn.functional.conv2d(
        image, weight, bias, stride=attribute.get("strides", [1, 1]), padding=padding, groups=attribute.get("group", 1))


def batch_norm(attribute, image, scale, shift, mean, variance):
    return nn.functional.batch_norm(image, mean, variance, scale, shift, eps=attribute.get("epsilon", 1e-5))


OPERATIONS = {
    "Conv": conv,
    "BatchNormalization": batch_norm,
    "Relu": lambda attribute, x: torch.relu(x),
    "Clip": lambda attribute, x, least, most: torch.clamp(x, least, most),
    "Add": lambda attribute, x, y: x + y,
    "MaxPool": lambda attribute, x: nn.functional.max_pool2d(x, attribute["kernel_shape"], attribute["strides"]),
    "GlobalAveragePool": lambda attribute, x: x.mean((2, 3), keepdim=True),
    "Flatten": lambda attribute, x: x.flatten(1),
    "Gemm": lambda attribute, x, weight, bias: torch.addmm(bias, x, weight),
    "Sigmoid": lambda attribute, x: torch.sigmoid(x),
}


def wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


def timed(work, device, seconds):
    """Milliseconds of a run, the median, after warming up."""
    for _ in range(3):
        work()
    wait(device)
    times, began = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        work()
        wait(device)
        times.append((time.perf_counter() - start) * 1000)
    return sorted(times)[len(times) // 2]


def images(shape, batch, device, dtype):
    """Host memory that the card reads by itself, as the node's pinned memory; never zeros, which can run faster."""
    made = torch.rand([batch, *shape], generator=torch.Generator().manual_seed(batch))
    return made.pin_memory() if device == "cuda" else made


def infer(args):
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    for precision in args.precisions.split(","):
        dtype = {"fp32": torch.float32, "fp16": torch.float16}[precision]
        network = FromOnnx(args.model).eval().to(args.device, dtype)
        if args.device == "cuda" and precision == "fp16":
            network = network.to(memory_format=torch.channels_last)
        for way in args.ways.split(","):
            called = torch.compile(network) if way == "compiled" else network
            for batch in [int(batch) for batch in args.batches.split(",")]:
                host = images(network.shape, batch, args.device, dtype)

                # From host memory to probabilities in host memory, as the node's batches go.
                def work():
                    return called(host.to(args.device, non_blocking=True).to(dtype)).float().cpu()

                began = time.perf_counter()
                with torch.inference_mode():
                    work()
                    first = time.perf_counter() - began
                    ms = timed(work, args.device, args.seconds)
                say({
                    "precision": precision, "way": way, "batch": batch, "ms": ms, "slices_a_second": batch * 1000 / ms,
                    "first_seconds": first})


def check(args):
    """Probabilities of random images, for a comparison with ONNX Runtime."""
    network = FromOnnx(args.model).eval().to(args.device)
    host = images(network.shape, args.batch, args.device, torch.float32)
    with torch.inference_mode():
        say({"probabilities": network(host.to(args.device)).flatten().tolist(), "images": host.flatten().tolist()})


def train(args):
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    network = FromOnnx(args.model, training=True).train().to(args.device)
    adam = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=0.01)
    host = images(network.shape, args.batch, args.device, torch.float32)
    labels = (torch.arange(args.batch) % 2).float().reshape(-1, 1).to(args.device)

    def work():
        adam.zero_grad(set_to_none=True)
        loss = nn.functional.binary_cross_entropy_with_logits(network(host.to(args.device, non_blocking=True)), labels)
        loss.backward()
        adam.step()
        return loss

    first = float(work().detach())
    ms = timed(work, args.device, args.seconds)
    say({
        "precision": "fp32", "way": "eager", "batch": args.batch, "step_ms": ms, "slices_a_second": args.batch * 1000 / ms,
        "first_loss": first, "last_loss": float(work().detach())})


def say(value):
    print(json.dumps(value), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["infer", "train", "check"])
    parser.add_argument("model")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--batches", default="1,4,16,64")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--ways", default="eager,compiled")
    parser.add_argument("--precisions", default="fp32,fp16")
    args = parser.parse_args()
    {"infer": infer, "train": train, "check": check}[args.what](args)


if __name__ == "__main__":
    main()
