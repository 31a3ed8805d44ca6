"""Which operators can read codes instead of floats, and what Pad fills in then."""

from __future__ import annotations

import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from onnx_cgmq.gating.movers import movers_above, read_codes


def _value(body: str, name: str = "y") -> ir.Value:
    text = f"""<ir_version: 10, opset_import: ["": 21]> g (float[n,4,6] x, int64[m] i) => (z)
    <int64[1] zero = {{0}}, int64[1] two = {{2}}, int64[1] axis = {{1}}, float half = {{0.5}},
     int64[6] pads = {{0, 1, 0, 0, 1, 0}}>
    {{ {body} z = Relu(y) }}"""
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))
    return next(v for node in model.graph for v in node.outputs if v.name == name)


@pytest.mark.parametrize(
    ("body", "above"),
    [
        ("a = Transpose(x) y = Flatten(a)", ["Flatten", "Transpose"]),
        ("a = Abs(x) y = Flatten(a)", ["Flatten"]),
        ("a = Transpose(x) b = Abs(a) y = Flatten(a)", ["Flatten"]),
        ("y = Slice(x, zero, two, axis)", ["Slice"]),
        ("b = Abs(x) y = Slice(x, zero, two, axis)", []),  # behind Slice there is less to quantize
        ("b = Abs(x) a = Slice(x, zero, two, axis) y = Transpose(a)", ["Transpose"]),
        ("y, b = Split<axis=1, num_outputs=2>(x)", ["Split"]),
        ("y, b = Split<axis=1, num_outputs=2>(x) c = Abs(b)", []),
        ("y = Gather(x, zero)", ["Gather"]),
        ("y = Gather(x, i)", []),
        ("y = Pad(x, pads)", ["Pad"]),
        ('y = Pad<mode="reflect">(x, pads)', ["Pad"]),
        ("y = Pad(x, pads, half)", []),
        ("a = Mul(half, x) b = Flatten(a) y = Div(b, half)", ["Div", "Flatten", "Mul"]),
        ("a = Neg(half) y = Mul(x, a)", []),
        ("y = Mul(x, x)", []),
        ("y = Add(x, half)", []),
    ],
)
def test_which_operators_count_as_movers_above_a_value(body: str, above: list[str]) -> None:
    assert [mover.node.op_type for mover in movers_above(_value(body))] == above


def test_a_mover_keeps_the_output_that_is_read() -> None:
    y = _value("b, y = Split<axis=1, num_outputs=2>(x)")
    (mover,) = movers_above(y)
    assert mover.output is y


def test_movers_keep_their_factors() -> None:
    movers = movers_above(_value("a = Mul(half, x) b = Flatten(a) y = Div(b, half)"))
    assert [mover.factor for mover in movers] == [2.0, None, 0.5]


def test_pad_of_codes_fills_in_the_zero_point() -> None:
    y = _value("y = Pad(x, pads)")
    pad = y.producer()
    zero_point = ir.Value(name="zero_point")
    read_codes(pad, ir.Value(name="codes"), zero_point)
    assert [value.name for value in pad.inputs] == ["codes", "pads", "zero_point"]
