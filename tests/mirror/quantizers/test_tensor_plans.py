"""Plans of quantizers: numbers of a file; narrowing to codes changes no value."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_cgmq.contract.bits import Granularity, GridForm, Ladder, Role, code_range
from onnx_cgmq.contract.plan import BitPlan
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.inspection import inspect
from onnx_cgmq.learn.guide import Guide
from onnx_cgmq.mirror.quantizers.quantizer import GatedQuantizer
from onnx_cgmq.mirror.quantizers.tensor_plans import narrow_to_codes, tensor_plan
from onnx_cgmq.ort.session import open_session
from onnx_cgmq.writing.codes import quantized_values
from onnx_cgmq.writing.write_back import write_back
from tests.support.plans import draw_widths
from tests.support.toys import convnet, gated_mirror, mlp

SHAPE = (3, 8)


def _quantizer(granularity: Granularity, widths, role: Role = Role.WEIGHT) -> GatedQuantizer:
    axis = 0 if granularity is Granularity.CHANNEL else None
    spec = QuantizerSpec("w", role, GridForm.SYMMETRIC, granularity, Ladder(widths), SHAPE, axis)
    gate = torch.full(spec.gate_shape, spec.ladder.gate_max)
    return GatedQuantizer(spec, None, torch.ones(spec.range_shape), gate)


@given(
    granularity=st.sampled_from(list(Granularity)),
    ladder=st.sampled_from([(2, 4, 8, 16, 32), (0, 2, 4, 8, 16, 32), (0, 4, 32), (2, 8), (4, 16)]),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_narrowing_keeps_the_values_and_never_widens(granularity, ladder, seed) -> None:
    generator = np.random.default_rng(seed)
    quantizer = _quantizer(granularity, ladder)
    scale = generator.choice([0.0, 0.02, 0.3, 1.0], (3, 1))
    values = torch.from_numpy((scale * generator.normal(size=SHAPE)).astype(np.float32))
    quantizer.fit(values)
    widths = generator.choice(ladder, quantizer.spec.gate_shape)
    quantizer.set_gate(quantizer.gate_for(np.asarray(widths)))
    before = quantizer(values)[0].detach()
    narrow_to_codes(quantizer, values)
    torch.testing.assert_close(quantizer(values)[0].detach(), before, rtol=1e-5, atol=1e-12)
    assert (quantizer.widths <= widths).all()
    assert np.isin(quantizer.widths, ladder).all()
    narrowed = quantizer.widths
    narrow_to_codes(quantizer, values)
    np.testing.assert_array_equal(quantizer.widths, narrowed)
    plan = tensor_plan(quantizer, values)
    np.testing.assert_allclose(
        quantized_values(plan, plan.values), before.numpy(), rtol=1e-5, atol=1e-12
    )


def test_one_gate_stays_as_it_is() -> None:
    quantizer = _quantizer(Granularity.TENSOR, (2, 4, 8))
    narrow_to_codes(quantizer, torch.zeros(SHAPE))
    assert int(quantizer.widths) == 8


def test_float_entries_stay_float() -> None:
    for granularity in (Granularity.CHANNEL, Granularity.ELEMENT):
        quantizer = _quantizer(granularity, (0, 2, 4, 8, 16, 32))
        narrow_to_codes(quantizer, torch.zeros(SHAPE))
        assert (quantizer.widths == 32).all()


@pytest.mark.parametrize("width", [0, 2, 8, 32])
@pytest.mark.parametrize("granularity", [Granularity.CHANNEL, Granularity.ELEMENT])
def test_a_plan_has_a_grid_where_there_is_one(granularity, width) -> None:
    quantizer = _quantizer(granularity, (0, 2, 8, 32))
    quantizer.set_gate(quantizer.gate_for(np.full(quantizer.spec.gate_shape, width)))
    values = torch.linspace(-1, 1, 24).reshape(SHAPE)
    plan = tensor_plan(quantizer, values)
    assert (plan.widths == width).all()
    assert plan.widths.shape == plan.step.shape == quantizer.spec.gate_shape
    assert plan.low.shape == plan.high.shape == quantizer.spec.range_item_shape
    expected = 0 if width in (0, 32) else 2 / (2**width - 1)
    np.testing.assert_allclose(plan.step, expected, rtol=1e-6)
    assert not plan.zero_point.any()
    assert plan.is_float == (width == 32)


@pytest.mark.parametrize("width", [2, 32])
def test_a_plan_of_one_gate(width) -> None:
    quantizer = _quantizer(Granularity.TENSOR, (2, 8, 32))
    quantizer.set_gate(quantizer.gate_for(np.array(width)))
    plan = tensor_plan(quantizer, None)
    assert plan.step.shape == plan.high.shape == ()
    assert float(plan.step) == pytest.approx(0 if width == 32 else 2 / 3)


def test_a_plan_owns_its_values() -> None:
    quantizer, values = _quantizer(Granularity.TENSOR, (2, 8)), torch.ones(SHAPE)
    plan = tensor_plan(quantizer, values)
    values.fill_(9)
    assert (plan.values == 1).all()


@pytest.mark.parametrize("prune", [False, True])
@pytest.mark.parametrize("activations", ["tensor", None])
@pytest.mark.parametrize("granularity", ["channel", "element"])
def test_plan_json_file_and_mirror_say_the_same(granularity, activations, prune) -> None:
    gated, mirror, _ = gated_mirror(
        mlp(), granularity=granularity, activation_granularity=activations, prune=prune
    )
    _set_widths(mirror, draw_widths(gated, np.random.default_rng(0)))
    plan = Guide(mirror, "100%").plan()
    again = BitPlan.from_json(plan.to_json())
    report = inspect(write_back(gated, plan))
    assert again.cost == plan.cost
    assert report.bops == plan.cost.bops
    assert report.weight_bytes == plan.cost.weight_bytes
    for name, tensor in plan.tensors.items():
        np.testing.assert_array_equal(again.tensors[name].widths, tensor.widths)
        np.testing.assert_array_equal(mirror.quantizers[name].widths, tensor.widths)
        has_grid = (tensor.widths > 0) & (tensor.widths < 32)
        assert ((tensor.step > 0) == has_grid).all()
        if tensor.role is Role.WEIGHT:
            np.testing.assert_array_equal(
                np.broadcast_to(report.tensors[name].widths, tensor.shape),
                np.broadcast_to(tensor.widths, tensor.shape),
            )
            largest = np.vectorize(lambda w, form=tensor.form: code_range(w % 32, form)[1])
            values = mirror.value_parameters[name].detach().numpy()
            step = np.where(has_grid, tensor.step, 1)
            codes = np.abs(quantized_values(tensor, values)) / step
            assert (np.where(has_grid, codes, 0) <= largest(tensor.widths) + 1e-3).all()


@pytest.mark.parametrize("granularity", [g.value for g in Granularity])
@pytest.mark.parametrize("network", [mlp, convnet])
def test_mirror_equals_onnxruntime_on_the_gated_model(network, granularity) -> None:
    """Ranges and gates set in the mirror and in the graph alike; bits of every kind mixed."""
    gated, mirror, data = gated_mirror(
        network(), granularity=granularity, prune=granularity != "tensor"
    )
    _set_widths(mirror, draw_widths(gated, np.random.default_rng(1), largest_mixed=32))
    _copy_to_graph(mirror, gated)
    x = data.batch(np.arange(64)).inputs["x"]
    session = open_session(gated, threads=1, optimize=False)
    (expected,) = session.run(["y"], {"x": x})
    with torch.no_grad():
        found = mirror({"x": torch.from_numpy(x)})["y"].numpy()
    scale = np.abs(expected).max()
    assert scale > 0
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * scale)


def _set_widths(mirror, widths) -> None:
    for name, quantizer in mirror.quantizers.items():
        quantizer.set_gate(quantizer.gate_for(np.asarray(widths[name])))


def _copy_to_graph(mirror, gated: ir.Model) -> None:
    for name, (node, spec) in quantizer_nodes(gated).items():
        quantizer = mirror.quantizers[name]
        arrays = [quantizer.high.detach(), quantizer.gate]
        if spec.form is GridForm.AFFINE:
            arrays.insert(0, quantizer.low.detach())
        for value, array in zip(node.inputs[1:], arrays, strict=True):
            value.const_value = ir.tensor(array.numpy().copy(), name=value.name)


def test_plan_holds_only_values_that_were_learned() -> None:
    _, mirror, _ = gated_mirror(mlp())
    weights = [name for name, plan in mirror.plan().tensors.items() if plan.role is Role.WEIGHT]
    assert all(mirror.plan().tensors[name].values is None for name in weights)
    learned = weights[0]
    with torch.no_grad():
        mirror.value_parameters[learned].add_(1.0)
    changed = mirror.plan().tensors
    assert [name for name in weights if changed[name].values is not None] == [learned]


def test_symmetric_activations_have_no_zero_point() -> None:
    _, mirror, _ = gated_mirror(mlp(), form="qonnx", widths=(2, 4, 8))
    plan = mirror.plan().tensors["x"]
    assert float(plan.step) > 0
    assert (plan.form, int(plan.zero_point)) == (GridForm.SYMMETRIC, 0)
