"""The meaning of ``Quant`` against QONNX's definition, in numpy."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_cgmq.contract.identifiers import QUANT_DOMAIN
from onnx_cgmq.graph.qonnx import define_quant, is_quant
from onnx_cgmq.ort.session import open_session
from tests.support.quant import quant


def model_of(x, inputs, attributes, domain=QUANT_DOMAIN) -> ir.Model:
    names = ("scale", "zeropt", "bitwidth")
    value = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(x.shape))
    constants = [
        ir.Value(name=name, const_value=ir.tensor(np.asarray(array, np.float32), name=name))
        for name, array in zip(names, inputs, strict=True)
    ]
    attributes = {**attributes, "rounding_mode": "ROUND"}
    node = ir.node("Quant", [value, *constants], attributes, domain=domain)
    output = node.outputs[0]
    output.name, output.type, output.shape = "y", value.type, value.shape
    graph = ir.Graph(
        [value],
        [output],
        nodes=[node],
        initializers=constants,
        opset_imports={"": 21, domain: 1},
        name="quant",
    )
    return ir.Model(graph, ir_version=10)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    signed=st.booleans(),
    narrow=st.booleans(),
    bits=st.integers(2, 16),
    zero_point=st.integers(-8, 8),
    per_channel=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_quant_in_onnxruntime_computes_what_qonnx_defines(
    signed, narrow, bits, zero_point, per_channel, seed
):
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.01, 0.5, (3, 1) if per_channel else ()).astype(np.float32)
    x = (rng.normal(0, 2**bits, (3, 40)) * scale).astype(np.float32)
    x[:, :8] = np.arange(-4, 4) * scale + scale / 2  # ties
    attributes = {"signed": int(signed), "narrow": int(narrow)}
    model = model_of(x, (scale, zero_point, bits), attributes)
    define_quant(model)
    (y,) = open_session(model, threads=1).run(None, {"x": x})
    np.testing.assert_array_equal(y, quant(x, scale, zero_point, bits, signed, narrow))


@pytest.mark.parametrize("domain", [QUANT_DOMAIN, "onnx.brevitas", "finn.custom_op.general"])
def test_quant_is_defined_in_the_domains_of_other_exporters(domain) -> None:
    x = np.array([-3.0, 0.4, 0.6, 9.0], dtype=np.float32)
    model = model_of(x, (1, 0, 2), {"signed": 1, "narrow": 1}, domain)
    assert is_quant(model.graph[0])
    define_quant(model)
    (y,) = open_session(model, threads=1).run(None, {"x": x})
    assert y.tolist() == [-1, 0, 1, 1]


def test_define_quant_leaves_a_model_without_quant_as_it_is() -> None:
    x = np.zeros(2, dtype=np.float32)
    model = model_of(x, (1, 0, 2), {}, domain="somebody.else")
    define_quant(model)
    assert not model.functions
