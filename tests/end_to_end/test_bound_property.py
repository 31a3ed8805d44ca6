"""Random small networks and bounds: the file keeps the bound, and says what the mirror says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from tests.support.bounds import check_any_bound, check_minimum, configs
from tests.support.toys import CLASSES, make_model


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


def samples() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(64, 2, 6, 6)).astype(np.float32)


@given(
    model=networks(),
    config=configs(),
    share=st.floats(0, 1),
    size=st.booleans(),
    integer_kernels=st.booleans(),
)
@settings(max_examples=14, deadline=None, derandomize=True)
def test_the_file_keeps_any_feasible_bound(model, config, share, size, integer_kernels) -> None:
    check_any_bound(model, samples(), config, share, size, integer_kernels)


@given(model=networks(), config=configs(), size=st.booleans())
@settings(max_examples=8, deadline=None, derandomize=True)
def test_the_stated_minimum_is_possible_and_less_is_not(model, config, size) -> None:
    check_minimum(model, samples(), config, size)
