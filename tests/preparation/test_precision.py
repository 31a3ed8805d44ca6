from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import parser
from onnx.reference import ReferenceEvaluator

from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.files.load import load_model
from onnx_cgmq.preparation.precision import change_float_type

MODEL = """<ir_version: 10, opset_import: ["" : 21]>
g (TYPE[n,2] x, bool c) => (TYPE[n,2] y, float[n,2] z)
<TYPE[2,2] w = {1, 2, 3, 4}, int64[1] two = {2}> {
  h = MatMul(x, w)
  one = ConstantOfShape <value = TYPE[1] {1}> (two)
  i = If(c) <
    then_branch = t () => (TYPE[n,2] a) { s = Cast <to = NUMBER> (two) a = Mul(h, s) },
    else_branch = e () => (TYPE[n,2] b) { b = Neg(h) }
  >
  y = Add(i, one)
  z = Cast <to = 1> (y)
}"""


def build(name: str) -> onnx.ModelProto:
    number, dtype = {"float16": (10, np.float16), "bfloat16": (16, ml_dtypes.bfloat16)}[name]
    model = parser.parse_model(MODEL.replace("TYPE", name).replace("NUMBER", str(number)))
    weight = np.array([[1, 2], [3, 4]], dtype)  # the text can only give bits
    model.graph.initializer[0].CopyFrom(ir.serde.serialize_tensor(ir.tensor(weight, name="w")))
    return model


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("condition", [False, True])
def test_half_types_become_float32_but_not_at_inputs_and_outputs(
    name: str, condition: bool
) -> None:
    proto = build(name)
    model = load_model(proto)
    assert change_float_type(model)
    assert not change_float_type(load_model(parser.parse_model(_float32())))
    after = ir.serde.serialize_model(model)
    onnx.checker.check_model(after, full_check=True)
    assert [v.type for v in after.graph.input] == [v.type for v in proto.graph.input]
    assert [v.type for v in after.graph.output] == [v.type for v in proto.graph.output]
    assert {v.dtype for v in model.graph.initializers.values()} == {
        ir.DataType.FLOAT,
        ir.DataType.INT64,
    }
    inside = {output.dtype for node in model.graph.all_nodes() for output in node.outputs}
    assert ir.DataType.FLOAT in inside

    dtype = np.float16 if name == "float16" else ml_dtypes.bfloat16
    feeds = {"x": np.array([[1, -2], [0.5, 3]], dtype), "c": np.array(condition)}
    expected = ReferenceEvaluator(proto).run(None, feeds)
    found = ReferenceEvaluator(after).run(None, feeds)
    if name == "float16":
        found = ort.InferenceSession(after.SerializeToString()).run(None, feeds)
    for a, b in zip(expected, found, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a.astype(np.float64), b.astype(np.float64))


def _float32() -> str:
    return MODEL.replace("TYPE", "float").replace("NUMBER", "1")


def test_an_input_that_is_an_output_keeps_its_type() -> None:
    text = "g (float16[2] x) => (float16[2] x, float16[2] y) { y = Neg(x) }"
    model = load_model(parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {text}'))
    change_float_type(model)
    assert [(v.name, v.dtype) for v in model.graph.outputs] == [
        ("x", ir.DataType.FLOAT16),
        ("y", ir.DataType.FLOAT16),
    ]
    assert [node.op_type for node in model.graph] == ["Cast", "Neg", "Cast"]


def test_inputs_that_are_sequences_of_halves_are_refused() -> None:
    text = "g (seq(float16[2]) x, int64 i) => (float16[2] y) { y = SequenceAt(x, i) }"
    model = load_model(parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {text}'))
    with pytest.raises(ModelError, match=r"'x' is a SequenceType of FLOAT16; .* in FLOAT"):
        change_float_type(model)


def test_float32_may_become_double() -> None:
    model = load_model(parser.parse_model(_float32()))
    assert change_float_type(model, frozenset({ir.DataType.FLOAT}), ir.DataType.DOUBLE)
    onnx.checker.check_model(ir.serde.serialize_model(model), full_check=True)
    assert model.graph.initializers["w"].dtype is ir.DataType.DOUBLE
