"""Simulates encodings in onnxruntime: rounds each tensor of a float model in float nodes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from onnx_cgmq.contract.encodings import Encodings, largest_code, smallest_code


def simulated(model: ir.Model, encodings: Encodings) -> ir.Model:
    """The model with every activation and weight rounded to its encoding."""
    proto = ir.to_proto(model)
    graph = proto.graph
    nodes = list(graph.node)
    del graph.node[:]
    rounded = {}
    made = [*(value.name for value in graph.input), *(tensor.name for tensor in graph.initializer)]
    for name in made:
        _round(graph, name, encodings, rounded)
    for node in nodes:
        for index, name in enumerate(node.input):
            node.input[index] = rounded.get(name, name)
        graph.node.append(node)
        for name in node.output:
            _round(graph, name, encodings, rounded)
    for output in graph.output:
        if output.name in rounded:
            producer = next(node for node in graph.node if output.name in node.output)
            raise AssertionError(f"the output of {producer.op_type} must not be rounded")
    return ir.from_proto(proto)


def _round(
    graph: onnx.GraphProto, name: str, encodings: Encodings, rounded: dict[str, str]
) -> None:
    encoding = encodings.get(name)
    if encoding is None or encoding.is_float:
        return
    shape = ()
    if encoding.step.ndim:
        dims = next(tensor.dims for tensor in graph.initializer if tensor.name == name)
        shape = tuple(-1 if axis == encoding.axis else 1 for axis in range(len(dims)))
    numbers = {
        "step": encoding.step,
        "low": smallest_code(encoding),
        "high": largest_code(encoding),
    }
    for what, number in numbers.items():
        array = np.asarray(number, dtype=np.float32).reshape(shape)
        graph.initializer.append(numpy_helper.from_array(array, f"{name}/{what}"))
    value = name
    for operator, other in (
        ("Div", "step"), ("Round", ""), ("Max", "low"), ("Min", "high"), ("Mul", "step"),
    ):  # fmt: skip
        inputs = [value, f"{name}/{other}"] if other else [value]
        value = f"{name}/{operator}"
        graph.node.append(helper.make_node(operator, inputs, [value]))
    rounded[name] = value
