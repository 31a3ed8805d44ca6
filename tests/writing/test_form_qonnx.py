from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_cgmq.contract.bits import GridForm
from onnx_cgmq.contract.identifiers import QUANT_DOMAIN
from onnx_cgmq.gating.gated_qdq import is_gated_quantizer
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.graph.qonnx import define_quant, is_quant
from onnx_cgmq.inspection import inspect
from onnx_cgmq.writing.write_back import write_back
from tests.support.convolutions import GRANULARITIES, gated, mixed, network, run, samples
from tests.support.plans import draw_widths, make_plan, set_initializer
from tests.support.quant import run_reference


def widths_of(written: ir.Model) -> dict[str, int]:
    """Bit-width by the name of the value that a ``Quant`` makes."""
    return {
        node.outputs[0].name: int(node.inputs[3].const_value.numpy())
        for node in written.graph
        if is_quant(node)
    }


def quantizer(written: ir.Model, name: str) -> ir.Node:
    return next(node for node in written.graph if node.outputs[0].name == name)


def plan_of(model: ir.Model, **widths: int):
    names = quantizer_nodes(model)
    return make_plan(model, {name: np.array(widths.get(name, 8)) for name in names})


@pytest.mark.parametrize(("weights", "activations"), GRANULARITIES)
@pytest.mark.parametrize(("widths", "form"), [((2, 4, 8), "qonnx"), ((2, 4, 8, 16, 32), "ort")])
def test_outputs_and_cost_equal_those_of_the_gated_model(
    weights, activations, widths, form
) -> None:
    """Plans with zero points, which were made for another form, are written too."""
    model, plan = mixed(weights, activations, widths, form)
    written = write_back(model, plan, form="qonnx")
    assert not written.functions
    assert written.graph.opset_imports[QUANT_DOMAIN] == 1
    assert not any(is_gated_quantizer(node) for node in written.graph)
    x = samples()
    expected = run(model, x, False)
    runnable = written.clone()
    define_quant(runnable)
    onnx.checker.check_model(ir.to_proto(runnable), full_check=True)
    atol = 1e-6 * np.abs(expected).max()
    np.testing.assert_allclose(run(runnable, x, False), expected, rtol=0, atol=atol)
    reference = run_reference(ir.to_proto(written), {"x": x[:2]})
    np.testing.assert_allclose(reference, expected[:2], rtol=0, atol=20 * atol)
    report = inspect(written)
    assert report.bops == plan.cost.bops
    assert report.weight_bytes == plan.cost.weight_bytes


def test_quant_nodes_have_the_widths_of_the_plan() -> None:
    model = gated(form="qonnx")
    widths = {"x": 8, "w0": 4, "p0": 2, "w1": 2, "f": 4, "v0": 8, "hr": 16, "v1": 32}
    written = write_back(model, plan_of(model, **widths), form="qonnx")
    expected = {f"{name}.quantized": width for name, width in widths.items() if width < 32}
    assert widths_of(written) == expected
    signed, unsigned = quantizer(written, "x.quantized"), quantizer(written, "p0.quantized")
    assert (signed.attributes["signed"].value, signed.attributes["narrow"].value) == (1, 1)
    assert (unsigned.attributes["signed"].value, unsigned.attributes["narrow"].value) == (0, 0)
    for node in written.graph:
        if is_quant(node):
            assert node.attributes["rounding_mode"].as_string() == "ROUND"
            assert float(node.inputs[2].const_value.numpy()) == 0.0


def test_weights_lie_on_their_grid() -> None:
    """FINN drops the ``Quant`` of a constant weight, so the values must be on the grid already."""
    model = gated(granularity="channel", activation_granularity="tensor", form="qonnx")
    plan = make_plan(model, draw_widths(model, np.random.default_rng(0)))
    written = write_back(model, plan, form="qonnx")
    node = quantizer(written, "w1.quantized")
    values, scale = (value.const_value.numpy() for value in node.inputs[:2])
    assert scale.shape == (8, 1, 1, 1)
    assert int(node.inputs[3].const_value.numpy()) == plan.tensors["w1"].grid_width
    np.testing.assert_array_equal(np.round(values / scale) * scale, values)


def test_activation_with_one_width_and_a_range_for_each_channel() -> None:
    model = gated(granularity="channel", form="qonnx")
    plan = make_plan(
        model,
        {name: np.full(spec.gate_shape, 4) for name, (_, spec) in quantizer_nodes(model).items()},
    )
    written = write_back(model, plan, form="qonnx")
    node = quantizer(written, "p0.quantized")
    assert node.inputs[1].const_value.shape == (1, 8, 1, 1)
    assert node.inputs[3].const_value.shape == ()


@pytest.mark.parametrize(
    ("low", "signed", "bits"),
    [(0.0, 0, 4), (-8 / 7, 1, 4), (-0.3, 1, 5)],
    ids=["no negative code", "half of the codes", "any zero point"],
)
def test_quant_nodes_of_affine_grids(low, signed, bits) -> None:
    model = gated()
    node, spec = quantizer_nodes(model)["x"]
    assert spec.form is GridForm.AFFINE
    set_initializer(node.inputs[1], np.full(spec.range_shape, low))
    set_initializer(node.inputs[2], np.ones(spec.range_shape))
    written = write_back(model, plan_of(model, x=4), form="qonnx")
    quantized = quantizer(written, "x.quantized")
    clipped = quantized.op_type == "Clip"
    assert clipped == (bits == 5)
    quant = quantized.inputs[0].producer() if clipped else quantized
    assert quant.attributes["signed"].value == signed
    assert int(quant.inputs[3].const_value.numpy()) == bits
    ties = np.round(samples() / 0.05) * np.float32(0.05)
    x = np.concatenate([samples(), ties])
    runnable = written.clone()
    define_quant(runnable)
    np.testing.assert_allclose(run(runnable, x, False), run(model, x, False), rtol=0, atol=1e-6)


def test_bias_has_the_values_that_the_accumulator_adds() -> None:
    model = gated(form="qonnx")
    plan = plan_of(model)
    written = write_back(model, plan, form="qonnx")
    bias = written.graph.initializers["b0.values"].const_value.numpy()
    step = plan.tensors["x"].step * plan.tensors["w0"].step
    np.testing.assert_array_equal(np.round(bias / step).astype(np.float32) * step, bias)


def test_convolutions_have_a_kernel_shape() -> None:
    """QONNX reads ``kernel_shape``, which ONNX lets a model leave out."""

    def kernel_shapes(model: ir.Model) -> list:
        convolutions = [node for node in model.graph if node.op_type == "Conv"]
        return [list(node.attributes["kernel_shape"].value) for node in convolutions]

    model = gated(form="qonnx")
    with pytest.raises(KeyError):
        kernel_shapes(model)
    assert kernel_shapes(write_back(model, plan_of(model), form="qonnx")) == [[3, 3], [3, 3]]


@pytest.mark.slow
@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    granularity=st.sampled_from(["tensor", "channel", "element"]),
    activations=st.sampled_from(["tensor", "channel"]),
    exact=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_random_plans_written_equal_the_gated_model(granularity, activations, exact, seed) -> None:
    layers = [(6, 3, 2, 1, 1, False), (4, 2, 1, 0, 2, True)]
    model = insert_gates(
        network(np.random.default_rng(seed), layers),
        granularity=granularity,
        activation_granularity=activations,
        exact_steps=exact,
        form="qonnx",
        target="generic",
    )
    plan = make_plan(model, draw_widths(model, np.random.default_rng(seed)))
    written = write_back(model, plan, form="qonnx")
    define_quant(written)
    x = samples(seed, 4)
    expected = run(model, x, False)
    atol = 1e-6 * max(np.abs(expected).max(), 1e-3)
    np.testing.assert_allclose(run(written, x, False), expected, rtol=0, atol=atol)
