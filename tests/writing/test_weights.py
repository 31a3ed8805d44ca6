"""A weight is stored once, whatever kernels read it, in whatever layout."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_cgmq.contract.bits import Role
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.gating.predicted_kernels import Kernel
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.inspection import inspect
from onnx_cgmq.writing.write_back import write
from tests.support.convolutions import run
from tests.support.plans import draw_widths, make_plan, set_initializer


def weight_of_several_kernels(granularity: str) -> ir.Model:
    """A weight that is a second factor (integer kernel) and a first factor (float kernel)."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="second"),
        helper.make_node("MatMul", ["w", "h"], ["i"], name="first"),
        helper.make_node("MatMul", ["i", "w"], ["y"], name="last"),
    ]
    weight = np.random.default_rng(0).normal(0, 0.3, (8, 8)).astype(np.float32)
    weight[:2] = 1.0  # pairs of the largest code, which UINT8 codes are written for
    graph = helper.make_graph(
        nodes,
        "shared",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8, 8])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return gated_with_ranges(model, granularity=granularity)


def gated_with_ranges(model: onnx.ModelProto, **settings) -> ir.Model:
    """The gated model, with ranges of activations that its values fill."""
    gated = insert_gates(model, activation_granularity="tensor", **settings, target="generic")
    for node, spec in quantizer_nodes(gated).values():
        if spec.role is Role.ACTIVATION:
            set_initializer(node.inputs[-2], np.full(spec.range_shape, 2.5))
    return gated


def stored_bytes(model: ir.Model) -> int:
    """Bytes of all matrices in a file, without scales of one column."""
    tensors = [value.const_value for value in model.graph.initializers.values()]
    return sum(t.nbytes for t in tensors if len(t.shape) == 2 and t.shape[1] > 1)


@pytest.mark.parametrize("granularity", ["tensor", "element"])
@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize(
    ("width", "stored"), [(2, "INT2"), (4, "INT4"), (8, "UINT8"), (16, "INT16"), (32, "FLOAT")]
)
def test_integer_and_float_kernels_read_the_same_codes(granularity, compact, width, stored):
    gated = weight_of_several_kernels(granularity)
    widths = {
        name: np.full(spec.gate_shape, width if name == "w" else 8)
        for name, (_, spec) in quantizer_nodes(gated).items()
    }
    plan = make_plan(gated, widths)
    written = write(gated, plan, compact=compact)
    expected = Kernel.INTEGER if width <= 8 else Kernel.FLOAT
    assert written.kernels["second"].kernel is expected
    assert written.kernels["first"].kernel is Kernel.FLOAT
    report = inspect(written.model)
    assert report.tensors["w"].stored == stored
    assert stored_bytes(written.model) == report.weight_bytes == plan.cost.weight_bytes
    x = np.random.default_rng(1).normal(0, 1, (6, 8, 8)).astype(np.float32)
    wanted = run(gated, x, optimize=False)
    for optimize in (False, True):
        found = run(written.model, x, optimize)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


def language_model() -> onnx.ModelProto:
    """A table whose rows are looked up (float), and that is the head (integer), transposed."""
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 21]>
        g (float[n, 3] x) => (float[m, 10] y)
        <int64[2] rows = {-1, 4}> {
            [ids] ids = Cast<to=7>(x)
            [lookup] e = Gather(table, ids)
            [mix] h = MatMul(e, w)
            [flat] r = Reshape(h, rows)
            [turn] t = Transpose<perm=[1, 0]>(table)
            [head] y = Gemm(r, t, b)
        }"""
    )
    rng = np.random.default_rng(0)
    arrays = {n: rng.normal(0, 0.5, s) for n, s in (("table", (10, 4)), ("w", (4, 4)), ("b", 10))}
    arrays["table"][0] = 1.5  # pairs of the largest code, which UINT8 codes are written for
    model.graph.initializer.extend(
        numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()
    )
    return model


@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize("ranges", ["tensor", "channel"])
@pytest.mark.parametrize("granularity", ["tensor", "channel", "element"])
def test_a_tied_head_runs_in_integers_on_transposed_codes(granularity, ranges, compact):
    settings = {"granularity": granularity, "widths": (2, 4, 8)}
    gated = gated_with_ranges(language_model(), weight_ranges=ranges, **settings)
    plan = make_plan(gated, draw_widths(gated, np.random.default_rng(2)))
    written = write(gated, plan, compact=compact)
    assert written.kernels["head"].kernel is Kernel.INTEGER
    report = inspect(written.model, kernels=True)
    assert [node.kernel for node in report.nodes] == [Kernel.INTEGER, Kernel.INTEGER]
    assert report.bops == plan.cost.bops
    assert {name: tensor.role for name, tensor in report.tensors.items()} == {
        name: spec.role for name, (_, spec) in quantizer_nodes(gated).items()
    }
    bias_bytes = 4 * 10
    assert stored_bytes(written.model) == report.weight_bytes - bias_bytes
    assert report.weight_bytes == plan.cost.weight_bytes
    x = np.random.default_rng(1).integers(0, 10, (6, 3)).astype(np.float32)
    wanted = run(gated, x, optimize=False)
    for optimize in (False, True):
        found = run(written.model, x, optimize)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
