"""Random small networks of operators that onnxruntime may or may not run in integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

BATCH = 3
_OPSET = 23
_CLASSES = 5


class _Graph:
    """A graph that grows by one operator at a time; every value's shape is known."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.ends: list[str] = []

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.weights)}"
        kept = array if array.dtype == np.int64 else array.astype(np.float32)
        self.weights.append(onnx.numpy_helper.from_array(kept, name))
        return name

    def weight(self, *shape: int) -> str:
        """Random values; at times channels that are dead or tiny, as folded normalization has."""
        fan_in = max(1, int(np.prod(shape[1:])))
        array = self.rng.normal(0, 1.5 / np.sqrt(fan_in), shape)
        if self.rng.random() < 0.15:
            array[self.rng.integers(shape[0])] *= self.rng.choice([0.0, 1e-5])
        return self.constant(array)

    def bias(self, *shape: int) -> list[str]:
        return [self.constant(self.rng.normal(0, 0.3, shape))] if self.flip(0.7) else []

    def flip(self, chance: float = 0.5) -> bool:
        return bool(self.rng.random() < chance)

    def add(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Adds a node and gives its first output."""
        names = [
            f"v{len(self.nodes)}" if i == 0 else f"v{len(self.nodes)}.{i}" for i in range(outputs)
        ]
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), names, name=name, **attributes))
        known = [
            helper.make_tensor_value_info(value, TensorProto.FLOAT, self.shapes[value])
            for value in inputs
            if value in self.shapes
        ]
        used = [weight for weight in self.weights if weight.name in inputs]
        ends = [helper.make_empty_tensor_value_info(name) for name in names]
        graph = helper.make_graph([self.nodes[-1]], "one", known, ends, used)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        for value in inferred.graph.output:
            dims = value.type.tensor_type.shape.dim
            self.shapes[value.name] = tuple(dim.dim_value for dim in dims)
            if 0 in self.shapes[value.name] or len(dims) < 2:
                raise ValueError(f"{op_type}: no known shape")
        self.ends.extend(names)
        return names[0]

    def pick(self, shape: tuple[int, ...]) -> str | None:
        """An earlier value of a shape."""
        names = [name for name, known in self.shapes.items() if known == shape]
        return str(self.rng.choice(names)) if names else None

    def model(self) -> onnx.ModelProto:
        read = {name for node in self.nodes for name in node.input}
        outputs = [name for name in self.ends if name not in read]
        if self.flip(0.15):
            outputs.append(
                str(self.rng.choice([name for name in self.ends if name in read] or outputs))
            )

        def info(name: str) -> onnx.ValueInfoProto:
            shape = (
                "n" if self.shapes[name][0] == BATCH else self.shapes[name][0],
                *self.shapes[name][1:],
            )
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

        graph = helper.make_graph(
            self.nodes,
            "fuzz",
            [info("x")],
            [info(name) for name in dict.fromkeys(outputs)],
            self.weights,
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=11
        )


def _conv(g: _Graph, x: str) -> str:
    channels, *sides = g.shapes[x][1:]
    kernel = int(g.rng.integers(1, min(3, *sides) + 1))
    group = int(g.rng.choice([1, 1, channels, 2 if channels % 2 == 0 else 1]))
    out = group * int(g.rng.integers(1, 4)) if group > 1 else int(g.rng.choice([3, 4, 8]))
    attributes: dict[str, Any] = {
        "group": group,
        "strides": [int(g.rng.integers(1, 3))] * len(sides),
        "pads": [int(g.rng.integers(0, 2)) * (kernel > 1)] * (2 * len(sides)),
    }
    if g.flip(0.1):
        attributes = {"auto_pad": "SAME_UPPER", "group": group}
    w = g.weight(out, channels // group, *[kernel] * len(sides))
    return g.add("Conv", x, w, *g.bias(out), **attributes)


def _conv_transpose(g: _Graph, x: str) -> str:
    channels, *sides = g.shapes[x][1:]
    w = g.weight(channels, 4, *[2] * len(sides))
    return g.add("ConvTranspose", x, w, *g.bias(4), strides=[2] * len(sides))


def _pool(g: _Graph, x: str) -> str:
    sides = g.shapes[x][2:]
    op_type = str(g.rng.choice(["MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"]))
    if op_type.startswith("Global"):
        return g.add(op_type, x)
    kernel = int(min(2, *sides))
    pads: dict[str, Any] = {"pads": [1] * 2 * len(sides)} if kernel > 1 and g.flip(0.3) else {}
    return g.add(
        op_type, x, kernel_shape=[kernel] * len(sides), strides=[kernel] * len(sides), **pads
    )


def _squeeze_excite(g: _Graph, x: str) -> str:
    pooled = g.add("GlobalAveragePool", x)
    channels = g.shapes[x][1]
    ones = [1] * (len(g.shapes[x]) - 2)
    scores = g.add("Conv", pooled, g.weight(channels, channels, *ones), *g.bias(channels))
    gate = g.add(str(g.rng.choice(["Sigmoid", "HardSigmoid"])), scores)
    return g.add("Mul", x, gate)


def _clamp(g: _Graph, x: str) -> str:
    if g.flip():
        return g.add("Relu", x)
    low, high = g.constant(np.array(g.rng.choice([0.0, -1.0]))), g.constant(np.array(1.5))
    return g.add("Clip", x, low, high)


def _curve(g: _Graph, x: str) -> str:
    curves = ["Sigmoid", "LeakyRelu", "HardSwish", "Tanh", "Elu", "Gelu", "Softmax", "Swish"]
    op_type = str(g.rng.choice(curves[:-1]))
    return g.add(op_type, x, **({"axis": -1} if op_type == "Softmax" else {}))


def _merge(g: _Graph, x: str) -> str:
    shape = g.shapes[x]
    other = g.pick(shape) or x
    op_type = str(g.rng.choice(["Add", "Mul", "Concat", "Sub", "Add"]))
    if g.flip(0.2):
        other = g.constant(g.rng.normal(0, 1, (shape[-1],)))
        return g.add("Add" if op_type == "Concat" else op_type, x, other)
    if op_type == "Concat":
        return g.add("Concat", x, other, axis=int(g.rng.choice([1, len(shape) - 1])))
    return g.add("Add" if other == x and op_type == "Sub" else op_type, x, other)


def _move(g: _Graph, x: str) -> str:
    shape = g.shapes[x]
    rank = len(shape)
    kind = g.rng.integers(6)
    if kind == 0:
        axis = rank - 1
        ends = [g.constant(np.array([value])) for value in (0, max(1, shape[axis] - 1), axis)]
        return g.add("Slice", x, *ends)
    if kind == 1:
        pads = [0] * rank + [0] * (rank - 1) + [1]
        value = [g.constant(np.array(g.rng.choice([0.0, 0.5])))] if g.flip() else []
        return g.add("Pad", x, g.constant(np.array(pads)), *value)
    if kind == 2 and shape[1] % 2 == 0:
        g.add("Split", x, outputs=2, axis=1, num_outputs=2)
        first = g.nodes[-1].output
        return str(g.rng.choice(list(first)))
    if kind == 3 and rank > 2:
        return g.add("Transpose", x, perm=[0, *reversed(range(1, rank))])
    if kind == 4:
        return g.add("Flatten", x, axis=1)
    if rank == 2 and shape[1] % 4 == 0:
        return g.add("Reshape", x, g.constant(np.array([0, 4, -1])))
    return g.add("Identity", x)


def _gemm(g: _Graph, x: str) -> str:
    size, out = g.shapes[x][1], int(g.rng.choice([_CLASSES, 8]))
    attributes: dict[str, Any] = {}
    if g.flip(0.15):
        attributes["alpha"] = 0.5
    if g.flip(0.15):
        attributes["beta"] = 2.0
    trans_b = int(g.flip())
    w = g.weight(*((out, size) if trans_b else (size, out)))
    bias = g.bias(*([(out,), (1, out), (1,), (BATCH, 1)][int(g.rng.choice([0, 0, 0, 1, 2]))]))
    if g.flip(0.1):
        x = g.add("Transpose", x, perm=[1, 0])
        attributes["transA"] = 1
    return g.add("Gemm", x, w, *bias, transB=trans_b, **attributes)


def _matmul(g: _Graph, x: str) -> str:
    shape = g.shapes[x]
    size, out = shape[-1], int(g.rng.choice([_CLASSES, 8]))
    kind = g.rng.integers(8)
    if kind == 0 and len(shape) > 2:  # the weight first
        return g.add("MatMul", g.weight(out, shape[-2]), x)
    if kind == 1 and len(shape) == 3:  # a weight for each of the batch's rows
        return g.add("MatMul", x, g.weight(1, size, out))
    if kind == 2 and len(shape) > 2:
        perm = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
        other = g.pick(shape) or x
        return g.add("MatMul", x, g.add("Transpose", other, perm=perm))
    if kind == 3:  # one weight in two layouts
        w = g.weight(size, size)
        return g.add("MatMul", g.add("MatMul", x, w), g.add("Transpose", w, perm=[1, 0]))
    if kind == 4 and shape[-1] == shape[-2]:
        return g.add("MatMul", x, x)
    if kind == 5:
        return g.add("MatMul", x, g.weight(size))
    product = g.add("MatMul", x, g.weight(size, out))
    return g.add("Add", product, g.constant(g.rng.normal(0, 0.3, out))) if g.flip() else product


def _einsum(g: _Graph, x: str) -> str:
    letters = "nabcd"[: len(g.shapes[x])]
    return g.add(
        "Einsum",
        x,
        g.weight(g.shapes[x][-1], 6),
        equation=f"{letters},{letters[-1]}z->{letters[:-1]}z",
    )


def _norm(g: _Graph, x: str) -> str:
    return g.add("LayerNormalization", x, g.constant(np.ones(g.shapes[x][-1])))


def _lstm(g: _Graph, x: str) -> str:
    size = g.shapes[x][2]
    steps = g.add("Transpose", x, perm=[1, 0, 2])
    y = g.add(
        "LSTM", steps, g.weight(1, 16, size), g.weight(1, 16, 4), *g.bias(1, 32), hidden_size=4
    )
    return g.add("Transpose", g.add("Squeeze", y, g.constant(np.array([1]))), perm=[1, 0, 2])


def _attention(g: _Graph, x: str) -> str:
    size = g.shapes[x][2]
    q, k, v = (g.add("MatMul", x, g.weight(size, 8)) for _ in range(3))
    return g.add("Attention", q, k, v, q_num_heads=2, kv_num_heads=2)


_ANY = (_clamp, _clamp, _curve, _merge, _merge, _move, _norm)
_SPATIAL = (_conv,) * 6 + (_pool, _pool, _squeeze_excite, _conv_transpose)
_FLAT = (_gemm,) * 4 + (_matmul,) * 3
_SEQUENCE = (_matmul,) * 5 + (_einsum, _lstm, _attention, _conv)

_Step = Callable[[_Graph, str], str]


def random_network(case: int) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A network and inputs for it, the same for the same number."""
    rng = np.random.default_rng(case)
    g = _Graph(rng)
    shapes = [(3, 9, 9), (4, 8, 8), (4, 12), (6, 10), (8, 6, 5, 5), (12,), (5, 8)]
    g.shapes["x"] = (BATCH, *shapes[rng.integers(len(shapes))])
    value = "x"
    for _ in range(int(rng.integers(2, 9))):
        rank = len(g.shapes[value])
        own = _FLAT if rank == 2 else _SPATIAL if rank > 3 else (*_SEQUENCE, *_SPATIAL[:1])
        steps: tuple[_Step, ...] = own if rng.random() < 0.6 else _ANY
        step = steps[rng.integers(len(steps))]
        before = (len(g.nodes), len(g.weights), len(g.ends), dict(g.shapes))
        try:
            value = step(g, value)
            if np.prod(g.shapes[value]) > 1 << 14:
                raise ValueError("large")
        except Exception:  # the operator does not take these shapes
            del g.nodes[before[0] :], g.weights[before[1] :], g.ends[before[2] :]
            g.shapes = before[3]
            value = next(reversed(g.shapes))
    rank = len(g.shapes[value])
    (_gemm if rank == 2 else _conv if rank > 3 else _matmul)(g, value)
    count = 48 // BATCH * BATCH
    x = np.random.default_rng(case).normal(0, 1, (count, *g.shapes["x"][1:]))
    return g.model(), {"x": x.astype(np.float32)}
