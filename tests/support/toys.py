"""Tiny models with fixed random weights, data that they classify with a margin, gated mirrors."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx import TensorProto, helper
from torch.nn.functional import cross_entropy

from onnx_cgmq.data.source import Samples, open_data
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.learn.calibrate import calibrate
from onnx_cgmq.learn.guide import Guide
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.ort.session import open_session
from onnx_cgmq.preparation.prepare import prepare
from onnx_cgmq.settings.config import Config

CLASSES = 3


def make_model(nodes, weights, sample_shape, batch="n", outputs=None) -> onnx.ModelProto:
    """A model from input ``x`` ``[batch, *sample_shape]`` to ``y`` ``[batch, CLASSES]``."""
    outputs = outputs or {"y": [batch, CLASSES]}
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *sample_shape])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        [onnx.numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def mlp(seed: int = 0, batch="n", softmax: bool = False) -> onnx.ModelProto:
    """Gemm, Relu, Gemm: 8 inputs, 12 hidden units."""
    rng = np.random.default_rng(seed)
    weights = {
        "w1": rng.normal(0, 0.5, (8, 12)),
        "b1": rng.normal(0, 0.1, 12),
        "w2": rng.normal(0, 0.5, (12, CLASSES)),
        "b2": rng.normal(0, 0.1, CLASSES),
    }
    last = "scores" if softmax else "y"
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("Gemm", ["r", "w2", "b2"], [last], name="last"),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", [last], ["y"], name="softmax", axis=1))
    return make_model(nodes, weights, [8], batch)


def convnet(seed: int = 0) -> onnx.ModelProto:
    """Conv, Relu, MaxPool, Conv, Relu, Flatten, Gemm on 1x8x8 images."""
    rng = np.random.default_rng(seed)
    weights = {
        "k1": rng.normal(0, 0.4, (4, 1, 3, 3)),
        "c1": rng.normal(0, 0.1, 4),
        "k2": rng.normal(0, 0.3, (6, 4, 3, 3)),
        "c2": rng.normal(0, 0.1, 6),
        "w": rng.normal(0, 0.3, (CLASSES, 24)),
        "b": rng.normal(0, 0.1, CLASSES),
    }
    nodes = [
        helper.make_node("Conv", ["x", "k1", "c1"], ["h1"], name="conv1", pads=[1] * 4),
        helper.make_node("Relu", ["h1"], ["r1"], name="relu1"),
        helper.make_node(
            "MaxPool", ["r1"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]
        ),
        helper.make_node("Conv", ["p", "k2", "c2"], ["h2"], name="conv2"),
        helper.make_node("Relu", ["h2"], ["r2"], name="relu2"),
        helper.make_node("Flatten", ["r2"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w", "b"], ["y"], name="last", transB=1),
    ]
    return make_model(nodes, weights, [1, 8, 8])


def toy_data(model: onnx.ModelProto, count: int = 192, seed: int = 0) -> dict[str, np.ndarray]:
    """Samples that lie clear of the model's class borders, labelled with its classes."""
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim][1:]
    x = np.random.default_rng(seed).normal(0, 1, (3 * count, *shape)).astype(np.float32)
    scores = open_session(model, threads=1).run(["y"], {"x": x})[0]
    ordered = np.sort(scores, axis=1)
    clear = np.sort(np.argsort(ordered[:, -2] - ordered[:, -1], kind="stable")[:count])
    return {"x": x[clear], "label": scores[clear].argmax(axis=1)}


def gated_mirror(model: onnx.ModelProto, **settings) -> tuple[ir.Model, Mirror, Samples]:
    """The gated model, by default for the target ``generic``, its calibrated mirror, and data."""
    float_model = prepare(model)
    gated = insert_gates(float_model, Config.create(**{"target": "generic", **settings}))
    mirror = Mirror(gated)
    data = open_data(toy_data(model), float_model)
    calibrate(mirror, data)
    return gated, mirror, data


def guided_steps(mirror: Mirror, guide: Guide, data: Samples, count: int) -> list[bool]:
    """Backward passes with fixed weights, each followed by ``guide.step()``.

    Returns:
        Whether the bound was kept, after every step.
    """
    batch = data.batch(np.arange(64))
    x, labels = torch.from_numpy(batch.inputs["x"]), torch.from_numpy(batch.labels)
    kept = []
    for _ in range(count):
        mirror.zero_grad()
        cross_entropy(mirror({"x": x})["y"], labels).backward()
        guide.step()
        kept.append(guide.satisfied)
    return kept
