"""Trains the float network of ``onnx_cgmq.examples.digits`` and writes the files of that example.

The network is a small LeNet, so that the example fits into the wheel. It is trained as the LeNet-5
of ``examples/mnist`` is, on the same 55,000 digits. The tool measures the accuracy of the written
ONNX file in onnxruntime, on all 10,000 test digits and on the first ones, which it stores.

    python tools/make_digits_example.py --cache .cache/mnist --output onnx_cgmq/examples/data
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from get_mnist import DEFAULT_CACHE, load_mnist
from make_mnist_example import TRAINED_ON, accuracy, export, train
from torch import nn

STORED_TRAIN, STORED_TEST = 3_000, 1_000
DROPOUT = 0.2


def small_lenet() -> nn.Sequential:
    """16C5-MP2-32C5-MP2-48FC-10 with valid padding; input [N,1,28,28], output [N,10]."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 16, 5),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(16, 32, 5),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(512, 48),
            relu3=nn.ReLU(),
            dropout=nn.Dropout(DROPOUT),
            fc2=nn.Linear(48, 10),
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and write the digits example.")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--output", type=Path, default=Path("onnx_cgmq/examples/data"))
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    output: Path = options.output
    output.mkdir(parents=True, exist_ok=True)
    x_train, y_train, x_test, y_test = load_mnist(options.cache)
    for name, images, labels, count in (
        ("digits-train.npz", x_train, y_train, STORED_TRAIN),
        ("digits-test.npz", x_test, y_test, STORED_TEST),
    ):
        np.savez_compressed(output / name, image=images[:count], label=labels[:count])

    torch.manual_seed(options.seed)
    model = small_lenet()
    train(model, x_train[:TRAINED_ON], y_train[:TRAINED_ON], options.epochs)
    path = output / "digits.onnx"
    export(model, path)
    stored = accuracy(path, x_test[:STORED_TEST], y_test[:STORED_TEST])
    print(f"validation accuracy {accuracy(path, x_train[TRAINED_ON:], y_train[TRAINED_ON:]):.2%}")
    print(f"test accuracy {accuracy(path, x_test, y_test):.2%}, {stored:.2%} of those stored")
    sizes = {file.name: file.stat().st_size for file in sorted(output.iterdir())}
    print(", ".join(f"{name} {size:,} bytes" for name, size in sizes.items()))


if __name__ == "__main__":
    main()
