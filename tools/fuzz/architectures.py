"""Random transformers, MLPs and CNNs, as exporters write them: with an open or a fixed batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

SAMPLES = 16
_CLASSES = 5
_OPSETS = (20, 21, 22)
_BATCHES: tuple[str | int, ...] = ("n", 1, 4)
_ACTIVATIONS = ("Relu", "Gelu", "Sigmoid", "Tanh", "HardSwish", "LeakyRelu", "Clip", "")


@dataclass
class _Network:
    """A graph that grows by one operator at a time."""

    rng: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, array: Any) -> str:
        name = f"c{len(self.constants)}"
        array = np.asarray(array)
        kept = array if array.dtype == np.int64 else array.astype(np.float32)
        self.constants.append(onnx.numpy_helper.from_array(kept, name))
        return name

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        output = f"{op.lower()}{len(self.nodes)}"
        node = helper.make_node(op, list(inputs), [output], name=output, **attributes)
        self.nodes.append(node)
        return output

    def linear(self, x: str, wide: int, out: int) -> str:
        """A product with a weight, mostly with a bias on either side of its Add."""
        y = self.add("MatMul", x, self.constant(self.normal(wide, out) * 1.2 / np.sqrt(wide)))
        if self.rng.random() < 0.8:
            bias = self.constant(self.normal(out) * 0.3)
            y = self.add("Add", *((y, bias) if self.rng.random() < 0.5 else (bias, y)))
        return y

    def activation(self, x: str) -> str:
        kind = str(self.rng.choice(_ACTIVATIONS))
        if not kind:
            return x
        limits = (np.float32(0), np.float32(6)) if kind == "Clip" else ()
        return self.add(kind, x, *map(self.constant, limits))

    def layer_norm(self, x: str, width: int) -> str:
        factors = self.constant(self.rng.uniform(0.5, 1.5, width))
        return self.add("LayerNormalization", x, factors, self.constant(self.normal(width) * 0.1))

    def normal(self, *shape: int) -> np.ndarray:
        return self.rng.normal(size=shape)


Built = tuple[str, tuple[int, ...], tuple[int, ...]]
"""The last value, and the shapes of input and output for one sample."""


def _attention(g: _Network, x: str, width: int, heads: int) -> str:
    def split(value: str, perm: list[int]) -> str:
        shape = g.constant(np.array([0, 0, heads, width // heads], np.int64))
        return g.add("Transpose", g.add("Reshape", value, shape), perm=perm)

    q, k, v = (g.linear(x, width, width) for _ in range(3))
    scores = g.add("MatMul", split(q, [0, 2, 1, 3]), split(k, [0, 2, 3, 1]))
    if g.rng.random() < 0.7:
        scores = g.add("Mul", scores, g.constant(np.float32((width // heads) ** -0.5)))
    mixed = g.add("MatMul", g.add("Softmax", scores, axis=-1), split(v, [0, 2, 1, 3]))
    joined = g.add("Transpose", mixed, perm=[0, 2, 1, 3])
    rows = g.add("Reshape", joined, g.constant(np.array([0, 0, width], np.int64)))
    return g.linear(rows, width, width)


def _transformer(g: _Network) -> Built:
    length, width = int(g.rng.integers(3, 8)), int(g.rng.choice([8, 12, 16]))
    heads = int(g.rng.choice([1, 2, 4]))
    y = g.linear("x", width, width) if g.rng.random() < 0.4 else "x"
    for _ in range(int(g.rng.integers(1, 3))):
        first = g.rng.random() < 0.6  # normalisation before attention, or behind it
        y = g.add("Add", y, _attention(g, g.layer_norm(y, width) if first else y, width, heads))
        y = y if first else g.layer_norm(y, width)
        z = g.layer_norm(y, width) if g.rng.random() < 0.7 else y
        inner = g.activation(g.linear(z, width, 2 * width))
        y = g.add("Add", y, g.linear(inner, 2 * width, width))
    end = g.rng.random()
    if end < 0.4:
        y = g.add("ReduceMean", y, g.constant(np.array([1], np.int64)), keepdims=0)
    elif end < 0.7:
        y = g.add("Gather", y, g.constant(np.array(0, np.int64)), axis=1)
    scores = g.linear(y, width, _CLASSES)
    return scores, (length, width), (_CLASSES,) if end < 0.7 else (length, _CLASSES)


def _mlp(g: _Network) -> Built:
    width = wide = int(g.rng.integers(4, 12))
    rows = (4,) if g.rng.random() < 0.5 else ()
    y = "x"
    for _ in range(int(g.rng.integers(1, 4))):
        out = int(g.rng.integers(4, 16))
        y, wide = g.activation(g.linear(y, wide, out)), out
        if g.rng.random() < 0.3:
            y = g.add("Mul", y, g.constant(g.rng.uniform(0.5, 2, wide)))
    return g.linear(y, wide, _CLASSES), (*rows, width), (*rows, _CLASSES)


def _cnn(g: _Network) -> Built:
    channels = first = int(g.rng.integers(1, 4))
    size, y = 8, "x"
    for _ in range(int(g.rng.integers(1, 4))):
        out = int(g.rng.choice([4, 6, 8]))
        z = _convolution(g, y, channels, out)
        if channels == out and g.rng.random() < 0.5:
            z = g.add("Add", z, y)
        if size > 2 and g.rng.random() < 0.4:
            kind = str(g.rng.choice(["MaxPool", "AveragePool"]))
            z, size = g.add(kind, z, kernel_shape=[2, 2], strides=[2, 2]), size // 2
        y, channels = z, out
    if g.rng.random() < 0.6:
        y, size = g.add("GlobalAveragePool", y), 1
    flat, wide = g.add("Flatten", y), channels * size * size
    weight = g.constant(g.normal(wide, _CLASSES) / np.sqrt(wide))
    scores = g.add("Gemm", flat, weight, g.constant(g.normal(_CLASSES) * 0.3))
    return scores, (first, 8, 8), (_CLASSES,)


def _convolution(g: _Network, x: str, channels: int, out: int) -> str:
    depthwise = channels == out and g.rng.random() < 0.4
    inputs = [x, g.constant(g.normal(out, 1 if depthwise else channels, 3, 3) * 0.5)]
    if g.rng.random() < 0.7:
        inputs.append(g.constant(g.normal(out) * 0.3))
    group = channels if depthwise else 1
    y = g.add("Conv", *inputs, pads=[1, 1, 1, 1], group=group)
    if g.rng.random() < 0.4:
        statistics = (g.rng.uniform(0.5, 1.5, out), g.normal(out) * 0.2, g.normal(out) * 0.2)
        variance = g.rng.uniform(0.5, 2, out)
        y = g.add("BatchNormalization", y, *map(g.constant, (*statistics, variance)))
    return g.activation(y)


_ARCHITECTURES: tuple[Callable[[_Network], Built], ...] = (_transformer, _transformer, _mlp, _cnn)
"""Half of the networks are transformers: onnxruntime rewrites most in these."""


def random_architecture(case: int) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A network and inputs for it, the same for the same number; its batch may be fixed."""
    rng = np.random.default_rng(case)
    network = _Network(rng)
    batch = _BATCHES[int(rng.integers(len(_BATCHES)))]
    build = _ARCHITECTURES[int(rng.integers(len(_ARCHITECTURES)))]
    output, shape, made = build(network)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        network.nodes,
        build.__name__.strip("_"),
        [value("x", TensorProto.FLOAT, [batch, *shape])],
        [value(output, TensorProto.FLOAT, [batch, *made])],
        network.constants,
    )
    opset = helper.make_opsetid("", int(rng.choice(_OPSETS)))
    model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
    onnx.checker.check_model(model)
    return model, {"x": rng.normal(size=(SAMPLES, *shape)).astype(np.float32)}
