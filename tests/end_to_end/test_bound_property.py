"""Random small graphs and bounds: the file keeps the bound, and says what the mirror says."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from toys import CLASSES, guided_steps, make_model

from onnx_cgmq.config import Config
from onnx_cgmq.cost.bound import CostKind
from onnx_cgmq.data.source import open_data
from onnx_cgmq.errors import BoundError
from onnx_cgmq.graph.insert import insert_gates
from onnx_cgmq.graph.lower.ort import write_back
from onnx_cgmq.graph.prepare import prepare
from onnx_cgmq.inspection import inspect
from onnx_cgmq.learn.calibrate import calibrate
from onnx_cgmq.learn.guide import Guide
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.runtime import open_session


@dataclass(frozen=True)
class Layer:
    """A convolution with what follows it."""

    channels: int
    kernel: int
    stride: int
    pad: int
    grouped: bool
    relu: bool
    pool: bool


LAYERS = st.builds(
    Layer,
    channels=st.sampled_from([2, 4, 6]),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    pad=st.integers(0, 1),
    grouped=st.booleans(),
    relu=st.booleans(),
    pool=st.booleans(),
)


@st.composite
def networks(draw) -> onnx.ModelProto:
    """Up to two convolutions, then up to two Gemm, from ``[n, 2, 6, 6]`` to ``[n, CLASSES]``."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    nodes, weights, value = [], {}, "x"
    channels, side = 2, 6
    for i, layer in enumerate(draw(st.lists(LAYERS, max_size=2))):
        kernel = min(layer.kernel, side + 2 * layer.pad)
        group = 2 if layer.grouped else 1
        weights[f"k{i}"] = rng.normal(0, 0.5, (layer.channels, channels // group, kernel, kernel))
        inputs = [value, f"k{i}"]
        if draw(st.booleans()):
            weights[f"c{i}"] = rng.normal(0, 0.2, layer.channels)
            inputs.append(f"c{i}")
        nodes.append(
            helper.make_node(
                "Conv",
                inputs,
                [f"h{i}"],
                name=f"conv{i}",
                strides=[layer.stride] * 2,
                pads=[layer.pad] * 4,
                group=group,
            )
        )
        value, channels = f"h{i}", layer.channels
        side = (side + 2 * layer.pad - kernel) // layer.stride + 1
        if layer.relu:
            nodes.append(helper.make_node("Relu", [value], [f"r{i}"], name=f"relu{i}"))
            value = f"r{i}"
        if layer.pool and side >= 2:
            window = {"kernel_shape": [2, 2], "strides": [2, 2]}
            nodes.append(helper.make_node("MaxPool", [value], [f"p{i}"], name=f"pool{i}", **window))
            value, side = f"p{i}", side // 2
    nodes.append(helper.make_node("Flatten", [value], ["f"], name="flatten"))
    value, width = "f", channels * side * side
    if draw(st.booleans()):
        weights |= {"w0": rng.normal(0, 0.3, (width, 5)), "b0": rng.normal(0, 0.2, 5)}
        nodes.append(helper.make_node("Gemm", [value, "w0", "b0"], ["g"], name="hidden"))
        nodes.append(helper.make_node("Relu", ["g"], ["gr"], name="relu_hidden"))
        value, width = "gr", 5
    weights |= {"w1": rng.normal(0, 0.4, (CLASSES, width)), "b1": rng.normal(0, 0.2, CLASSES)}
    nodes.append(helper.make_node("Gemm", [value, "w1", "b1"], ["y"], name="last", transB=1))
    return make_model(nodes, weights, [2, 6, 6])


@st.composite
def configs(draw) -> Config:
    granularity = draw(st.sampled_from(["tensor", "channel", "element"]))
    return Config(
        granularity=granularity,
        activation_granularity=draw(st.sampled_from([None, "tensor"])),
        prune=granularity != "tensor" and draw(st.booleans()),
        widths=draw(st.sampled_from([(2, 4, 8, 16, 32), (2, 8), (4, 16, 32)])),
        input_width=draw(st.sampled_from([None, 8])),
    )


def _gated(model: onnx.ModelProto, config: Config):
    float_model = prepare(model)
    gated = insert_gates(float_model, config)
    rng = np.random.default_rng(0)
    arrays = {
        "x": rng.normal(size=(64, 2, 6, 6)).astype(np.float32),
        "label": rng.integers(0, CLASSES, 64),
    }
    data = open_data(arrays, float_model)
    mirror = Mirror(gated)
    calibrate(mirror, data)
    return gated, mirror, data


def _check(gated, mirror, guide: Guide, data) -> None:
    """The plan, the file and onnxruntime agree, within the bound."""
    plan = mirror.plan()
    written = write_back(gated, plan)
    report = inspect(written)
    assert report.bops == plan.cost.bops
    assert report.weight_bytes == plan.cost.weight_bytes
    size = guide.bound.kind is CostKind.SIZE
    assert guide.bound.is_satisfied_by(report.weight_bytes if size else report.bops)
    x = data.batch(np.arange(32)).inputs["x"]
    with torch.no_grad():
        expected = mirror({"x": torch.from_numpy(x)})["y"].numpy()
    scale = max(float(np.abs(expected).max()), 1e-3)
    for optimize in (False, True):
        session = open_session(written, threads=1, optimize=optimize)
        (found,) = session.run(["y"], {"x": x})
        # Sums in another order may move a code by one; few do.
        close = np.abs(found - expected) <= 1e-4 * scale
        assert close.all(axis=1).mean() > 0.8


@given(
    model=networks(),
    config=configs(),
    share=st.floats(0, 1),
    size=st.booleans(),
    integer_kernels=st.booleans(),
)
@settings(max_examples=14, deadline=None, derandomize=True)
def test_the_file_keeps_any_feasible_bound(model, config, share, size, integer_kernels) -> None:
    gated, mirror, data = _gated(model, config)
    kind = "size:" if size else ""
    smallest, unit = _smallest(mirror, kind)
    # Evenly over the orders of magnitude between the smallest and the float cost.
    whole = Guide(mirror, f"{kind}100%").bound.limit
    limit = max(smallest, math.floor(max(smallest, 1) * (whole / max(smallest, 1)) ** share), 1)
    guide = Guide(mirror, f"{kind}{limit}{unit}", steps=6, interval=2)
    guided_steps(mirror, guide, data, 6)
    guide.settle(integer_kernels)
    assert guide.satisfied
    _check(gated, mirror, guide, data)


@given(model=networks(), config=configs(), size=st.booleans())
@settings(max_examples=8, deadline=None, derandomize=True)
def test_the_stated_minimum_is_possible_and_less_is_not(model, config, size) -> None:
    gated, mirror, data = _gated(model, config)
    kind = "size:" if size else ""
    smallest, unit = _smallest(mirror, kind)
    if smallest < 2:
        return  # all can be pruned
    with pytest.raises(BoundError, match="below what is possible") as refused:
        Guide(mirror, f"{kind}{smallest - 1}{unit}")
    stated = re.search(r"the smallest is ([\d,]+) [\w ]+ \('([^']+%)'\)", str(refused.value))
    assert int(stated[1].replace(",", "")) == smallest
    for bound in (stated[2], f"{kind}{smallest}{unit}"):
        guide = Guide(mirror, bound, steps=4, interval=2)
        guided_steps(mirror, guide, data, 4)
        guide.settle()
        assert guide.cost <= guide.bound.limit
    assert guide.cost == smallest
    _check(gated, mirror, guide, data)


def _smallest(mirror: Mirror, kind: str) -> tuple[int, str]:
    """The smallest possible cost and its unit."""
    smallest, _ = Guide(mirror, f"{kind}100%").cost_model.minimum()
    return smallest, "B" if kind else "BOP"
