"""Trains the float LeNet-5 of ``examples/mnist`` and writes the files of that folder.

Measures the test accuracy of the written ONNX file in onnxruntime, on all 10,000 test digits. The
last 5,000 training digits take no part, so that they can serve for validation.

    python -m tools.fetch.mnist_example --cache .cache/mnist --output examples/mnist
"""

from __future__ import annotations

import argparse
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tools.fetch.mnist import DEFAULT_CACHE, Images, Labels, load_mnist

TRAINED_ON = 55_000
EXAMPLE_TRAIN, EXAMPLE_TEST = 8_000, 2_000
BATCH = 128
DROPOUT = 0.4
LARGEST_SHIFT = 2  # pixels


def lenet5() -> nn.Sequential:
    """32C5-MP2-64C5-MP2-512FC-10 with valid padding; input [N,1,28,28], output [N,10]."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 32, 5),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(32, 64, 5),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(1024, 512),
            relu3=nn.ReLU(),
            dropout=nn.Dropout(DROPOUT),
            fc2=nn.Linear(512, 10),
        )
    )


def train(model: nn.Module, images: Images, labels: Labels, epochs: int) -> None:
    """Adam, one cosine from 1e-3 to 0; every batch is moved by up to two pixels each way."""
    # channels_last convolutions are nearly twice as fast on CPU.
    model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.from_numpy(images).to(memory_format=torch.channels_last)
    y = torch.from_numpy(labels)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    steps = len(y) // BATCH
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
    for epoch in range(epochs):
        start = time.perf_counter()
        total = 0.0
        for rows in torch.randperm(len(y))[: steps * BATCH].reshape(steps, BATCH):
            loss = cross_entropy(model(shifted(x[rows])), y[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.item()
        seconds = time.perf_counter() - start
        print(f"epoch {epoch + 1}: loss {total / steps:.4f}, {seconds:.0f} s", flush=True)


def shifted(x: Tensor) -> Tensor:
    """Moves the digits of a batch by one random offset; their margin of 4 pixels is empty."""
    down, right = torch.randint(-LARGEST_SHIFT, LARGEST_SHIFT + 1, (2,)).tolist()
    return x.roll((down, right), dims=(2, 3))


def export(model: nn.Sequential, path: Path) -> None:
    """Writes the ONNX file, with nodes and values named after the layers."""
    model.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    program = torch.onnx.export(
        model,
        (torch.zeros(2, 1, 28, 28),),
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    graph = program.model.graph
    layers = [name for name, layer in model.named_children() if not isinstance(layer, nn.Dropout)]
    nodes = list(graph)
    assert len(nodes) == len(layers), [node.op_type for node in nodes]
    for node, layer in zip(nodes, layers, strict=True):
        node.name = layer
        if not node.outputs[0].is_graph_output():
            node.outputs[0].name = layer
    forget_origin(program.model)
    ir.save(program.model, path)


def forget_origin(model: ir.Model) -> None:
    """Removes what the exporter notes about this machine: stack traces and file names."""
    graph = model.graph
    values = (*graph.inputs, *graph.initializers.values())
    outputs = (value for node in graph for value in node.outputs)
    for item in (model, graph, *graph, *values, *outputs):
        item.metadata_props.clear()
        item.doc_string = None


def accuracy(path: Path, images: Images, labels: Labels) -> float:
    """Share of digits that onnxruntime classifies right."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    right = 0
    for start in range(0, len(labels), 500):
        rows = slice(start, start + 500)
        (logits,) = session.run(["logits"], {"image": images[rows]})
        right += int((np.asarray(logits).argmax(1) == labels[rows]).sum())
    return right / len(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and write examples/mnist.")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--output", type=Path, default=Path("examples/mnist"))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    output: Path = options.output
    output.mkdir(parents=True, exist_ok=True)
    x_train, y_train, x_test, y_test = load_mnist(options.cache)
    for name, images, labels, count in (
        ("train.npz", x_train, y_train, EXAMPLE_TRAIN),
        ("test.npz", x_test, y_test, EXAMPLE_TEST),
    ):
        np.savez_compressed(output / name, image=images[:count], label=labels[:count])

    torch.manual_seed(options.seed)
    model = lenet5()
    train(model, x_train[:TRAINED_ON], y_train[:TRAINED_ON], options.epochs)
    path = output / "lenet5.onnx"
    export(model, path)
    validation = accuracy(path, x_train[TRAINED_ON:], y_train[TRAINED_ON:])
    print(f"validation accuracy {100 * validation:.2f} %, ", end="")
    print(f"test accuracy {100 * accuracy(path, x_test, y_test):.2f} % (onnxruntime)")


if __name__ == "__main__":
    main()
