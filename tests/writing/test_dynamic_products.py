"""Activations that are quantized at run time, as onnxruntime's DynamicQuantizeLinear does it."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from onnx_cgmq.api.export import export_encodings
from onnx_cgmq.api.pipeline import quantize
from onnx_cgmq.contract.bits import GridForm, Role
from onnx_cgmq.errors import ConfigError
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.gating.predicted_kernels import Kernel
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.inspection import inspect
from onnx_cgmq.inspection.kernel_differences import kernel_differences
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.ort.executed import executed_operators
from onnx_cgmq.settings.config import Config
from onnx_cgmq.writing.write_back import Written, write
from tests.support.convolutions import run
from tests.support.plans import make_plan
from tests.writing.test_packed_products import kernels, with_weights

SHAPES = {"a": (32, 48), "b": (32, 48), "linear": (20, 48), "c": (20,), "last": (20, 6)}


def products() -> onnx.ModelProto:
    """Two MatMuls of one activation, a Gemm that reads its weight turned, and a MatMul."""
    return with_weights(
        """<ir_version: 10, opset_import: ["": 21]>
        g (float[n, 32] x) => (float[n, 6] y) {
            [left] h = MatMul(x, a)
            [right] i = MatMul(x, b)
            j = Add(h, i)
            k = Tanh(j)
            [gemm] l = Gemm<transB=1>(k, linear, c)
            m = Sigmoid(l)
            [out] y = MatMul(m, last)
        }""",
        SHAPES,
    )


def written_of(model: onnx.ModelProto, **settings) -> tuple[ir.Model, Written]:
    gated = insert_gates(model, target="ort-dynamic", **settings)
    return gated, write(gated, make_plan(gated))


def rows(count: int = 7, size: int = 32) -> np.ndarray:
    return np.random.default_rng(1).normal(0.3, 1, (count, size)).astype(np.float32)


def test_onnxruntime_runs_all_products_in_integers():
    _, written = written_of(products())
    assert kernels(written) == dict.fromkeys(("left", "right", "gemm", "out"), Kernel.INTEGER)
    report = inspect(written.model, kernels=True)
    assert list(kernel_differences(written.kernels, report)) == []
    assert {node.bits for node in report.nodes} == {(8, 8)}
    assert {node.operands for node in report.nodes} == {
        ("x", "a"),
        ("x", "b"),
        ("k", "linear"),
        ("m", "last"),
    }
    runs = executed_operators(written.model)
    one_activation = {runs[name] for name in ("h", "i")}
    assert one_activation == {"MatMulIntegerToFloat"}
    assert {runs[name] for name in ("l", "y")} == {"DynamicQuantizeMatMul"}
    assert report.notes == ()


@pytest.mark.parametrize(
    "values", [rows(), rows() * 100, np.abs(rows()), -np.abs(rows()), rows() * 0]
)
def test_gated_model_mirror_and_file_compute_the_same(values):
    """With optimizations and without, whatever the range: negative, positive, or nothing but 0."""
    gated, written = written_of(products())
    wanted = run(gated, values, optimize=False)
    largest = np.abs(wanted).max()
    mirrored = Mirror(gated)({"x": torch.from_numpy(values)})["y"].detach().numpy()
    for found in (mirrored, *(run(written.model, values, optimize) for optimize in (False, True))):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * largest)


def test_a_batch_has_one_range():
    """A row beside one with large values has other codes than alone, as in onnxruntime."""
    gated, written = written_of(products())
    both = np.concatenate([rows(1), 100 * rows(1)])
    mirror = Mirror(gated)
    alone, beside = (mirror({"x": torch.from_numpy(x)})["y"][:1] for x in (both[:1], both))
    assert not torch.allclose(alone, beside, atol=1e-3)
    found = run(written.model, both, optimize=True)[:1]
    np.testing.assert_allclose(beside.detach().numpy(), found, rtol=0, atol=1e-5)


def test_the_gradient_goes_straight_through():
    mirror = Mirror(insert_gates(products(), target="ort-dynamic"))
    x = torch.from_numpy(rows()).requires_grad_()
    quantized, step = mirror.quantizers["x"](x)
    quantized.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))
    assert float(step) == 0
    assert (quantized - x).abs().max() <= (x.max() - x.min()) / 255 / 2 * 1.001


def test_other_nodes_read_floats():
    """Conv, a product of two activations, and a weight that comes first."""
    model = with_weights(
        """<ir_version: 10, opset_import: ["": 21]>
        g (float[n, 4, 6, 6] x) => (float[n, 4, 8, 8] y) {
            [conv] h = Conv<kernel_shape=[1, 1]>(x, k)
            t = Transpose<perm=[0, 1, 3, 2]>(h)
            [scores] s = MatMul(h, t)
            [first] u = MatMul(w, s)
            [second] y = MatMul(u, v)
        }""",
        {"k": (4, 4, 1, 1), "w": (8, 6), "v": (6, 8)},
    )
    gated, written = written_of(model)
    specs = {name: spec for name, (_, spec) in quantizer_nodes(gated).items()}
    dynamic = [name for name, spec in specs.items() if spec.form is GridForm.DYNAMIC]
    assert dynamic == ["u"]
    assert {name for name, spec in specs.items() if spec.role is Role.WEIGHT} == {"k", "w", "v"}
    expected = {"conv": Kernel.FLOAT, "scores": Kernel.FLOAT, "first": Kernel.FLOAT}
    assert kernels(written) == {**expected, "second": Kernel.INTEGER}
    assert {node.name: node.bits for node in inspect(written.model).nodes} == {
        "conv": (32, 8),
        "scores": (32, 32),
        "first": (8, 32),
        "second": (8, 8),
    }


def test_a_float_weight_is_multiplied_by_the_floats_of_codes():
    gated, written = written_of(products(), keep_float=("a", "linear"))
    assert kernels(written) == {
        "left": Kernel.FLOAT,
        "right": Kernel.INTEGER,
        "gemm": Kernel.FLOAT,
        "out": Kernel.INTEGER,
    }
    wanted = run(gated, rows(), optimize=False)
    for optimize in (False, True):
        found = run(written.model, rows(), optimize)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_the_same_values_can_be_written_for_float_kernels():
    gated = insert_gates(products(), target="ort-dynamic")
    written = write(gated, make_plan(gated), integer_kernels=False)
    assert set(kernels(written).values()) == {Kernel.FLOAT}
    wanted = run(gated, rows(), optimize=False)
    for optimize in (False, True):
        found = run(written.model, rows(), optimize)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_a_run_learns_and_keeps_the_bound():
    data, held_out = {"x": rows(64)}, {"x": rows(32)}
    result = quantize(
        products(), data, "size:40%", target="ort-dynamic", validation=held_out, effort="fast"
    )
    assert result.check.within_bound
    assert result.check.mirror_db > 80
    plan = result.plan.tensors["x"]
    assert (plan.form, float(plan.step), float(plan.high)) == (GridForm.DYNAMIC, 0, 0)
    with pytest.raises(ConfigError, match=r"'x', .* the range is found at run time"):
        export_encodings(result.plan, "aimet")
    again = quantize(
        products(), data, "size:40%", plan=result.plan, validation=held_out, effort="fast"
    )
    assert float(again.plan.tensors["x"].step) > 0  # of the widths alone


def test_one_weight_in_two_layouts_is_stored_once():
    model = with_weights(
        """<ir_version: 10, opset_import: ["": 21]>
        g (float[n, 32] x) => (float[n, 32] y) {
            [to] h = MatMul(x, w)
            t = Tanh(h)
            turned = Transpose<perm=[1, 0]>(w)
            [back] y = MatMul(t, turned)
        }""",
        {"w": (32, 48)},
    )
    gated, written = written_of(model)
    assert kernels(written) == {"to": Kernel.INTEGER, "back": Kernel.INTEGER}
    assert inspect(written.model).weight_bytes == 32 * 48
    wanted = run(gated, rows(), optimize=False)
    np.testing.assert_allclose(run(written.model, rows(), True), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"exact_steps": True}, "no exact steps"),
        ({"form": "qonnx"}, "for the form 'ort'"),
        ({"activation_widths": (4, 8), "target": "onnxruntime"}, "8 or 32 bits"),
        ({"activation_granularity": "channel", "target": "generic"}, "granularity 'tensor'"),
    ],
)
def test_settings_that_do_not_go_together(settings, what):
    given = {"target": "ort-dynamic", "dynamic_activations": True, **settings}
    if given["target"] == "generic":
        given["activation_widths"] = (8,)
    with pytest.raises(ConfigError, match=what):
        Config.create(**given)
