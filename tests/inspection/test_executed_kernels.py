"""Executed kernels in reports, for our own files and for those of other tools."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from rich.console import Console

from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.gating.predicted_kernels import Kernel
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.inspection import inspect
from onnx_cgmq.writing.write_back import write_back
from tests.support.plans import make_plan

WIDTHS = {"x": 8, "w": 4, "r": 2, "v": 8}


def mlp() -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 21]> g (float[n, 4] x) => (float[n, 2] y) {
            [fc0] h = Gemm(x, w) [relu] r = Relu(h) [fc1] y = MatMul(r, v)
        }"""
    )
    rng = np.random.default_rng(0)
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        for name, shape in (("w", (4, 6)), ("v", (6, 2)))
    )
    return model


def written(widths: dict[str, int], **config) -> ir.Model:
    gated = insert_gates(mlp(), **config, target="generic")
    return write_back(gated, make_plan(gated, {n: widths[n] for n in quantizer_nodes(gated)}))


def kernels(model) -> dict[str, tuple[Kernel | None, str]]:
    return {n.name: (n.kernel, n.reason) for n in inspect(model, kernels=True).nodes}


def foreign(body: str, y: str = "float[n, 4] y") -> onnx.ModelProto:
    """A QDQ file with the quantized input ``a`` and all that the body may use."""
    head = '<ir_version: 10, opset_import: ["": 21]>'
    quantized = "[q] c = QuantizeLinear(x, s, z) [d] a = DequantizeLinear(c, s, z)"
    text = f"{head} g (float[n, 4] x) => ({y}) {{ {quantized} {body} }}"
    model = onnx.parser.parse_model(text)
    arrays = {
        "s": np.float32(0.5),
        "z": np.uint8(128),
        "zw": np.int8(0),
        "w8": np.ones((4, 4), np.int8),
        "w16": np.ones((4, 4), np.int16),
        "z16": np.int16(0),
        "w": np.eye(4, dtype=np.float32),
        "u16": np.uint16(0),
    }
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(array), name)
        for name, array in arrays.items()
        if name in used
    )
    if "w4" in used:
        packed = bytes([0x11] * 8)
        model.graph.initializer.append(
            onnx.helper.make_tensor("w4", onnx.TensorProto.INT4, (4, 4), packed, raw=True)
        )
        model.graph.initializer.append(
            onnx.helper.make_tensor("z4", onnx.TensorProto.INT4, (), bytes([0]), raw=True)
        )
    return model


def test_a_written_model_has_integer_kernels() -> None:
    found = kernels(written(WIDTHS))
    assert found == {"fc0": (Kernel.INTEGER, ""), "fc1": (Kernel.INTEGER, "")}


def test_the_reason_names_the_tensor_that_is_too_wide() -> None:
    found = kernels(written({**WIDTHS, "w": 16}))
    assert found["fc0"] == (
        Kernel.FLOAT,
        "weight 'w' has 16 bits, but integer kernels take at most 8",
    )
    assert found["fc1"][0] is Kernel.INTEGER


def test_a_float_model_has_float_kernels() -> None:
    reasons = {reason for kernel, reason in kernels(mlp()).values() if kernel is Kernel.FLOAT}
    assert reasons == {
        "activation 'x' has 32 bits, but integer kernels take at most 8",
        "activation 'r' has 32 bits, but integer kernels take at most 8",
    }


@pytest.mark.parametrize(
    ("body", "kernel", "reason"),
    [
        ("v = DequantizeLinear(w8, s, zw) [m] y = MatMul(a, v)", Kernel.INTEGER, ""),
        ("[m] y = MatMul(a, w)", Kernel.FLOAT, "weight 'w' has 32 bits"),
        ("v = DequantizeLinear(w16, s, z16) [m] y = MatMul(a, v)", Kernel.FLOAT, "16 bits"),
        ("v = DequantizeLinear(w4, s, z4) [m] y = MatMul(a, v)", Kernel.FLOAT, "INT4"),
        ("v = DequantizeLinear(w8, s, zw) [m] y = MatMul(v, a)", Kernel.FLOAT, "first factor"),
        (
            "v = DequantizeLinear(w8, s, zw) [m] h = MatMul(a, v) k = QuantizeLinear(h, s, z) "
            "l = DequantizeLinear(k, s, z) [add] y = Add(h, l)",
            Kernel.FLOAT,
            "its output is also read as float by Add 'add'",
        ),
        (
            "v = DequantizeLinear(w8, s, zw) [m] h = MatMul(a, v) k = QuantizeLinear(h, s, z) "
            "l = DequantizeLinear(k, s, z) y = Add(h, l)",
            Kernel.FLOAT,
            "its output is also read as float by Add of output 'y'",
        ),
    ],
)
def test_kernels_and_reasons_in_files_of_other_tools(body, kernel, reason) -> None:
    shape = "float[4, 4] y" if "MatMul(v, a)" in body else "float[n, 4] y"
    found = kernels(foreign(body, shape))["m"]
    assert found[0] is kernel
    assert reason in found[1]
    assert bool(found[1]) is bool(reason)


@pytest.mark.parametrize(
    ("short_names", "said"),
    [(False, "Softmax 'the_softmax'"), (True, "Softmax 'unnamed Softmax 4'")],
)
def test_no_reason_has_a_shortened_name(short_names, said) -> None:
    text = """<ir_version: 10, opset_import: ["": 21]>
    g (float[n, 4] input) => (float[n, 4] result)
    <float[4, 4] first_weight = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1},
     float[4, 4] second_weight = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}> {
        [first] hidden = MatMul(input, first_weight)
        [the_softmax] soft = Softmax(hidden)
        [the_sum] sum = Add(soft, hidden)
        [second] result = MatMul(sum, second_weight)
    }"""
    gated = insert_gates(onnx.parser.parse_model(text), integer_kernels=False)
    plan = make_plan(gated, {name: np.array(8) for name in quantizer_nodes(gated)})
    # Codes behind the first product, which its other reader does not read.
    model = write_back(gated, plan, short_names=short_names)
    product = next(node for node in model.graph if node.name == "first")
    scale = next(value for value in model.graph.initializers.values() if not value.shape)
    quantize = ir.node("QuantizeLinear", [product.outputs[0], scale])
    model.graph.append(quantize)
    reason = kernels(model)["first"][1]
    assert reason == f"its output is also read as float by {said}"


def test_16_bit_activations_have_float_kernels() -> None:
    body = """e = QuantizeLinear(x, s, u16) f = DequantizeLinear(e, s, u16)
        v = DequantizeLinear(w8, s, zw) [m] h = MatMul(f, v) y = Add(h, a)"""
    kernel, reason = kernels(foreign(body))["m"]
    assert kernel is Kernel.FLOAT
    assert reason.endswith("has 16 bits, but integer kernels take at most 8")


def test_a_note_says_that_onnxruntime_cannot_load_the_model() -> None:
    model = foreign("[m] h = MatMul(a, w) y = Identity(h)")
    model.graph.node[-1].domain = "nowhere"
    model.opset_import.append(onnx.helper.make_opsetid("nowhere", 1))
    report = inspect(model, kernels=True)
    assert [(n.kernel, n.reason) for n in report.nodes] == [
        (None, "onnxruntime can't load the model")
    ]
    assert "can't load the model: " in report.notes[0]


def test_kernels_are_not_looked_up_by_default() -> None:
    report = inspect(written(WIDTHS))
    assert {(node.kernel, node.reason) for node in report.nodes} == {(None, "")}
    assert "kernel" not in _text(report)


def test_kernels_are_in_the_table_and_in_json() -> None:
    report = inspect(written({**WIDTHS, "w": 16}), kernels=True)
    assert "why not fast" in _text(report)
    assert "weight 'w' has 16 bits" in _text(report)
    assert "8 x 16" in _text(report)
    first, second = json.loads(report.to_json())["nodes"]
    assert (first["kernel"], first["bits"]) == ("float", [8, 16])
    assert (second["kernel"], second["reason"]) == ("integer", "")
    unknown = replace(report, nodes=(replace(report.nodes[0], kernel=None, reason="why"),))
    assert "?" in _text(unknown)


def _text(report) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(report.table())
    return capture.get()


@pytest.mark.parametrize("form", ["native", "qonnx"])
def test_forms_for_other_flows_have_no_kernels(form) -> None:
    gated = insert_gates(mlp(), target="generic")
    plan = make_plan(gated, {name: WIDTHS[name] for name in quantizer_nodes(gated)})
    report = inspect(write_back(gated, plan, form=form), kernels=True)
    assert all(node.kernel is None and not node.reason for node in report.nodes)


def _convolution(dtype: type, group: int = 1, operator: bool = False) -> onnx.ModelProto:
    """A Conv of 4 channels between quantizers; as QLinearConv with ``operator``."""
    text = """<ir_version: 10, opset_import: ["": 21]>
    g (uint8[1, 4, 5, 5] x) => (uint8[1, 4, 3, 3] y) {
        [a] xf = DequantizeLinear(x, s, z) [b] wf = DequantizeLinear(w, s, zw)
        [conv] yf = Conv <group: int = %d> (xf, wf) [c] y = QuantizeLinear(yf, s, z)
    }"""
    if operator:
        text = """<ir_version: 10, opset_import: ["": 21]>
        g (uint8[1, 4, 5, 5] x) => (uint8[1, 4, 3, 3] y) {
            [conv] y = QLinearConv <group: int = %d> (x, s, z, w, s, zw, s, z)
        }"""
    model = onnx.parser.parse_model(text.replace("%d", str(group)))
    arrays = {
        "s": np.float32(0.5),
        "z": np.uint8(0),
        "w": np.full((4, 4 // group, 3, 3), 100, dtype),
        "zw": dtype(0),
    }
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()
    )
    return model


@pytest.mark.parametrize("operator", [False, True])
@pytest.mark.parametrize(
    ("dtype", "group", "slow"),
    [(np.uint8, 1, True), (np.uint8, 2, True), (np.int8, 1, False), (np.uint8, 4, False)],
)
def test_conv_of_uint8_weights_is_slow_unless_it_is_depthwise(dtype, group, slow, operator) -> None:
    report = inspect(_convolution(dtype, group, operator), kernels=True)
    (node,) = report.nodes
    assert (node.kernel, node.slow) == (Kernel.INTEGER, slow)
    assert ("is UINT8, which Conv multiplies more slowly" in node.reason) is slow
    assert ("integer, slow" in _text(report)) is slow
    assert json.loads(report.to_json())["nodes"][0]["slow"] is slow
