"""Images get a channel of zeros more: values and counts stay, and a fast kernel runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from onnx_cgmq.contract.bits import Role
from onnx_cgmq.contract.plan import BitPlan
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.gating.predicted_kernels import Kernel
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.inspection import inspect
from onnx_cgmq.mirror import Mirror
from onnx_cgmq.writing.write_back import write_back
from tests.support.convolutions import gated, run, samples
from tests.support.plans import make_plan, set_initializer

LAYERS = [(16, 3, 1, 1, 1, False), (8, 3, 1, 1, 1, False)]


def _planned(
    width: int = 8, activations: int = 8, pair_at: tuple[int, int] | None = None
) -> tuple[ir.Model, BitPlan]:
    """A gated network of images, and a plan with one width for all weights.

    Args:
        width: That width.
        activations: The width of all activations.
        pair_at: Where in the first kernel two channels have the largest code, and all else is 0. By
            default no code is so large that any pair could saturate.
    """
    model = gated(LAYERS, granularity="tensor", activation_granularity="tensor")
    quantizers = quantizer_nodes(model)
    node, spec = quantizers["w0"]
    weight = np.random.default_rng(0).uniform(-1, 1, spec.shape).astype(np.float32)
    if pair_at is not None:
        weight[:] = 0
        weight[:, :2, pair_at[0], pair_at[1]] = 1
    set_initializer(node.inputs[0], weight)
    set_initializer(node.inputs[-2], np.full(spec.range_shape, 2 if pair_at is None else 1))
    by_role = {Role.WEIGHT: width, Role.ACTIVATION: activations, Role.BIAS: 32}
    widths = {name: np.array(by_role[spec.role]) for name, (_, spec) in quantizers.items()}
    return model, make_plan(model, widths)


def _first_weight(model: ir.Model, folder: Path) -> np.ndarray:
    """The weight of the first convolution in the graph that onnxruntime runs."""
    run(model, samples(), True, folder / "optimized.onnx")
    graph = onnx.load(folder / "optimized.onnx").graph
    convolution = next(node for node in graph.node if node.op_type == "QLinearConv")
    constants = {value.name: value for value in graph.initializer}
    return onnx.numpy_helper.to_array(constants[convolution.input[3]])


@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize("activations", [4, 8])
@pytest.mark.parametrize("width", [2, 4, 8])
def test_onnxruntime_convolves_four_channels_with_equal_values(
    width: int, activations: int, compact: bool, tmp_path: Path
) -> None:
    model, plan = _planned(width, activations)
    expected = run(model, samples(), optimize=False)
    written = write_back(model, plan, compact=compact)
    onnx.checker.check_model(ir.to_proto(written), full_check=True)
    weight = _first_weight(written, tmp_path)
    assert (weight.dtype, weight.shape) == (np.int8, (16, 4, 3, 3))
    assert weight[:, :3].any()
    assert not weight[:, 3].any()
    for optimize in (False, True):
        found = run(written, samples(), optimize=optimize)
        close = np.isclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
        assert close.all(axis=1).sum() >= len(expected) - optimize
    mirrored = Mirror(written)({"x": torch.from_numpy(samples())})["y"].detach().numpy()
    np.testing.assert_allclose(mirrored, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_the_channel_is_neither_counted_nor_stored() -> None:
    model, plan = _planned()
    report = inspect(write_back(model, plan), kernels=True)
    assert report.bops == plan.cost.bops
    assert {node.name: node.bops for node in report.nodes} == plan.cost.bops_by_node
    assert report.weight_bytes == plan.cost.weight_bytes
    assert report.tensors["w0"].shape == (16, 3, 3, 3)
    assert report.tensors["x"].shape[1] == 3
    assert report.nodes[0].kernel is Kernel.INTEGER
    assert not report.nodes[0].slow


@pytest.mark.parametrize(
    ("pair_at", "stored"),
    [
        ((0, 0), np.uint8),  # neighbours with three channels and with four
        ((0, 1), np.int8),  # neighbours with four channels only: elements 3 and 4 of three
    ],
)
def test_a_weight_that_could_then_saturate_gets_none(pair_at, stored, tmp_path: Path) -> None:
    model, plan = _planned(pair_at=pair_at)
    weight = _first_weight(write_back(model, plan), tmp_path)
    assert (weight.dtype, weight.shape) == (stored, (16, 3, 3, 3))


@pytest.mark.parametrize("signature", ["float[n,3,h,w] x", "float[1,3,12,12] x"])
def test_an_image_may_leave_its_sizes_open(signature: str) -> None:
    proto = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["": 21]> g ({signature}) => (float[n,m,i,j] y)
        {{ h = Conv(x, w) r = Relu(h) y = Conv(r, v) }}"""
    )
    generator = np.random.default_rng(0)
    for name, shape in (("w", (8, 3, 3, 3)), ("v", (5, 8, 1, 1))):
        weight = generator.normal(0, 0.3, shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    model = insert_gates(proto, target="generic", granularity="tensor", widths=(4,))
    written = write_back(model, make_plan(model))
    assert _pads(written) == 2
    x = generator.normal(size=(1, 3, 12, 12)).astype(np.float32)
    expected = run(model, x, optimize=False)
    np.testing.assert_allclose(run(written, x, optimize=False), expected, rtol=1e-5, atol=1e-5)
    assert inspect(written, {"x": (1, 3, 12, 12)}).nodes[0].macs == 8 * 27 * 10 * 10


def _pads(model: ir.Model) -> int:
    return [node.op_type for node in model.graph].count("Pad")
