"""A small convolutional network, gated, and what it computes in onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import TensorProto, helper

from onnx_cgmq.contract.bits import Role
from onnx_cgmq.contract.plan import BitPlan
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from tests.support.plans import draw_widths, make_plan, set_initializer

GRANULARITIES = (
    ("tensor", "tensor"),
    ("channel", "tensor"),
    ("element", "tensor"),
    ("channel", "channel"),
    ("element", "element"),
)
"""Of weights and activations, as they are used together."""


def run(model: ir.Model, x, optimize: bool, save: Path | None = None) -> np.ndarray:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if save is not None:
        options.optimized_model_filepath = str(save)
    data = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def network(rng, layers, size=9, channels=3, hidden=8) -> onnx.ModelProto:
    """Convolutions ``(channels, kernel, stride, pad, group, pool)``, then Gemm and MatMul."""
    nodes, weights, value = [], {}, "x"
    side = size
    for i, (out, kernel, stride, pad, group, pool) in enumerate(layers):
        kernel = min(kernel, side + 2 * pad)
        weights[f"w{i}"] = rng.normal(0, 0.4, (out, channels // group, kernel, kernel))
        weights[f"b{i}"] = rng.normal(0, 0.2, (out,))
        attributes = {"strides": [stride] * 2, "pads": [pad] * 4, "group": group}
        inputs = [value, f"w{i}", f"b{i}"]
        nodes.append(helper.make_node("Conv", inputs, [f"c{i}"], name=f"conv{i}", **attributes))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"], name=f"relu{i}"))
        value, channels = f"r{i}", out
        side = (side + 2 * pad - kernel) // stride + 1
        if pool and side >= 2:
            pooling = {"kernel_shape": [2, 2], "strides": [2, 2], "name": f"pool{i}"}
            nodes.append(helper.make_node("MaxPool", [value], [f"p{i}"], **pooling))
            value, side = f"p{i}", (side - 2) // 2 + 1
    nodes.append(helper.make_node("Flatten", [value], ["f"], name="flatten"))
    weights["v0"] = rng.normal(0, 0.3, (hidden, channels * side * side))
    weights["d0"] = rng.normal(0, 0.2, (hidden,))
    weights["v1"] = rng.normal(0, 0.4, (hidden, 5))
    nodes += [
        helper.make_node("Gemm", ["f", "v0", "d0"], ["h"], name="fc0", transB=1),
        helper.make_node("Relu", ["h"], ["hr"], name="relu_h"),
        helper.make_node("MatMul", ["hr", "v1"], ["y"], name="fc1"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [onnx.numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


LAYERS = [(8, 3, 1, 1, 1, True), (8, 3, 1, 1, 2, False)]


def gated(layers=LAYERS, seed=0, **config) -> ir.Model:
    """The network with gates, by default for the target ``generic``."""
    config = {"target": "generic", **config}
    model = insert_gates(network(np.random.default_rng(seed), layers), **config)
    for node, spec in quantizer_nodes(model).values():
        if spec.role is Role.ACTIVATION:
            set_initializer(node.inputs[-2], np.full(spec.range_shape, 2.5))
    return model


def mixed(weights, activations, widths, form="ort") -> tuple[ir.Model, BitPlan]:
    """A gated model and a plan of drawn widths; weights with many gates may be pruned."""
    model = gated(
        granularity=weights,
        activation_granularity=activations,
        widths=widths,
        prune=weights != "tensor",
        form=form,
    )
    return model, make_plan(model, draw_widths(model, np.random.default_rng(2), widths[-1]))


def samples(seed=1, count=16) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (count, 3, 9, 9)).astype(np.float32)
