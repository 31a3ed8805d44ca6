"""A weight is stored once, whatever kernels read it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.gating.predicted_kernels import Kernel
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.inspection import inspect
from onnx_cgmq.writing.write_back import write
from tests.support.convolutions import run
from tests.support.plans import make_plan, set_initializer


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
    gated = insert_gates(model, granularity=granularity, activation_granularity="tensor")
    for name, (node, spec) in quantizer_nodes(gated).items():
        if name != "w":
            set_initializer(node.inputs[-2], np.full(spec.range_shape, 2.5))
    return gated


def stored_bytes(model: ir.Model) -> int:
    """Bytes of all matrices in a file."""
    tensors = (value.const_value for value in model.graph.initializers.values())
    return sum(t.nbytes for t in tensors if len(t.shape) == 2)


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
