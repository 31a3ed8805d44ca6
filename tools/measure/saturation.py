"""Finds which products onnxruntime's integer kernels add in INT16, and compares with our model.

x86 processors without VNNI add two products of a UINT8 activation and an INT8 weight in INT16, with
saturation. For each case, every output channel gets a weight with 127 at two places and 0
elsewhere, all activations are 255, and so the outputs say which two places meet in one sum. Run it
where VNNI is missing::

    qemu-x86_64 -cpu Haswell .venv/bin/python -m tools.measure.saturation
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from onnx_cgmq.gating.summed_pairs import sum_order
from onnx_cgmq.ort.session import new_session

Pairs = set[tuple[int, int]]

_CODE, _ACTIVATION = 127, 255
_SHORT = 150
_FUSED = {"QLinearConv", "QLinearMatMul", "QGemm", "MatMulIntegerToFloat"}


@dataclass(frozen=True)
class Case:
    """One kernel with one shape.

    Attributes:
        op: Operator type of the float node.
        weight: Shape of the weight without its output channels: ``[C/g, k...]`` or ``[..., K]``.
        x: Shape of the activation.
        attributes: Attributes of the node.
        quantized: Whether the output is quantized.
        depthwise: Whether every channel is a group of its own, with one output channel. There are
            then as many channels as there are pairs of places.
        in_eights: Whether some pairs of places are there twice, so that output channels come in
            eights. onnxruntime has another kernel for these, if input channels come in fours.
    """

    op: str
    weight: tuple[int, ...]
    x: tuple[int, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    quantized: bool = True
    depthwise: bool = False
    in_eights: bool = False

    def __str__(self) -> str:
        extra = "".join(f" {name}={value}" for name, value in self.attributes.items())
        output = "" if self.quantized else ", float output"
        extra += " depthwise" if self.depthwise else ""
        extra += " in eights" if self.in_eights else ""
        return f"{self.op} {list(self.x)} x {list(self.weight)}{extra}{output}"


def cases() -> Iterator[Case]:
    """Lists the cases: every kernel, with odd and even sums, one output row and several."""
    for channels, kernel in itertools.product((1, 2, 3, 4, 5, 8, 16), (1, 3)):
        taps = (kernel, kernel)
        for size in (kernel, kernel + 3) if channels * kernel > 1 else ():
            yield Case("Conv", (channels, *taps), (1, channels, size, size))
    yield Case("Conv", (3, 2, 3), (1, 3, 4, 5))
    yield Case("Conv", (4, 3, 3), (2, 4, 7, 7), {"strides": [2, 2]})
    yield Case("Conv", (4, 3, 3), (1, 4, 7, 7), {"dilations": [2, 2]})
    yield Case("Conv", (16, 3, 3), (1, 16, 19, 19))
    yield Case("Conv", (67, 3, 3), (1, 67, 5, 5))
    yield Case("Conv", (64, 3, 3), (1, 64, 5, 5))
    for channels, size in itertools.product((1, 2, 3, 4), (3, 8)):
        yield Case("Conv", (channels, 3), (1, channels, size))
        yield Case("Conv", (channels, 2, 2, 2), (1, channels, size, size, size))
    for channels, groups in itertools.product((1, 2, 3, 4), (2, 3)):
        for kernel in (1, 3) if channels > 1 else (3,):
            shape = (1, groups * channels, kernel + 2, kernel + 2)
            yield Case("Conv", (channels, kernel, kernel), shape, {"group": groups})
    for op, quantized in (("MatMul", True), ("MatMul", False), ("Gemm", True), ("Gemm", False)):
        for summed, rows in itertools.product((2, 3, 4, 5, 7, 8, 16, 17, 33), (1, 2, 7)):
            yield Case(op, (summed,), (rows, summed), quantized=quantized)
    for summed, rows in itertools.product((515, 1026), (1, 7)):
        yield Case("MatMul", (summed,), (rows, summed))
    for summed in (4, 7):
        yield Case("Gemm", (summed,), (3, summed), {"transB": 1})
        for quantized in (True, False):
            yield Case("MatMul", (summed,), (2, 3, summed), quantized=quantized)
            yield Case("MatMul", (2, summed), (2, 3, summed), quantized=quantized)
            yield Case("MatMul", (2, summed), (2, 1, summed), quantized=quantized)
    for size, taps in itertools.product((3, 6), ((2, 3), (3, 3))):
        yield Case("Conv", (1, *taps), (1, 1, size, size), depthwise=True)
    for channels, kernel in itertools.product((4, 8), (1, 2, 3)):
        x = (1, channels, kernel + 3, kernel + 3)
        yield Case("Conv", (channels, kernel, kernel), x, in_eights=True)


def measure(case: Case) -> tuple[Pairs, Pairs, str]:
    """Runs one case.

    Returns:
        The pairs of places whose products saturate, those that our model names, and the operator
        that ran. A place is a flat index into the weight of one output channel.
    """
    size = int(np.prod(case.weight)) if case.op == "Conv" else case.weight[-1]
    places = [(a, b) for a, b in itertools.combinations(range(size), 2) if _is_tried(size, b - a)]
    if case.depthwise:
        case = replace(case, x=(1, len(places), *case.x[2:]), attributes={"group": len(places)})
    groups = 1 if case.depthwise else case.attributes.get("group", 1)
    count = -(-len(places) // 8) * 8 if case.in_eights else len(places)
    rows = np.zeros((count, size), np.int8)
    for row, pair in zip(rows, itertools.cycle(places), strict=False):
        row[list(pair)] = _CODE
    if case.op == "Conv":
        weight = np.tile(rows, (groups, 1)).reshape(-1, *case.weight)
    else:
        weight = rows if case.attributes.get("transB") else rows.T
        weight = np.broadcast_to(weight, (*case.weight[:-1], *weight.shape))
    model = _model(case, weight)
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        session = new_session(model.SerializeToString(), optimized_model=optimized)
        (y,) = session.run(None, {"x": np.full(case.x, _ACTIVATION, np.uint8)})
        operators = {node.op_type for node in onnx.load(optimized).graph.node}
    ran = next(iter(operators & _FUSED), "no integer kernel")
    found = {places[i] for i in np.argwhere(_saturated(case, y))[:, 0] % len(places)}
    node = next(n for n in ir.from_proto(model).graph if n.op_type == case.op)
    order = sum_order(node, weight.shape)
    pairs = np.zeros(0) if order is None else order.largest_pairs(weight.astype(np.int64)).ravel()
    named = {places[i % len(places)] for i in np.flatnonzero(pairs == 2 * _CODE)}
    return found, named, ran


def _is_tried(size: int, distance: int) -> bool:
    """Says whether pairs at a distance are tried: in a long sum, only a few distances."""
    return size <= _SHORT or distance in (1, 2, 3, 4, 8, 9, 16, size // 2, size // 9)


def _saturated(case: Case, y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Says which output channels are less than the sum of two products anywhere."""
    expected = 2 * _CODE if case.quantized else 2 * _CODE * _ACTIVATION
    by_channel = np.moveaxis(y, 1 if case.op == "Conv" else -1, 0)
    return np.asarray((by_channel.reshape(len(by_channel), -1) < 0.9 * expected).any(axis=1))


def _model(case: Case, weight: np.ndarray[Any, Any]) -> onnx.ModelProto:
    """Builds the operator between quantizers, all of whose steps are 1, that of the output 255."""
    constants = {
        "one": np.float32(1),
        "large": np.float32(_ACTIVATION),
        "none": np.uint8(0),
        "w": np.ascontiguousarray(weight),
        "none_signed": np.int8(0),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "one", "none"], ["x_float"]),
        helper.make_node("DequantizeLinear", ["w", "one", "none_signed"], ["w_float"]),
        helper.make_node(case.op, ["x_float", "w_float"], ["y_float"], **case.attributes),
    ]
    output, data_type = "y_float", TensorProto.FLOAT
    if case.quantized:
        output, data_type = "y", TensorProto.UINT8
        nodes.append(helper.make_node("QuantizeLinear", ["y_float", "large", "none"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "case",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, case.x)],
        [helper.make_tensor_value_info(output, data_type, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def main() -> None:
    """Prints a line for every case, and ends with an error if a pair is not named."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    wrong = saturating = 0
    for case in cases():
        found, named, ran = measure(case)
        verdict = "as named" if found == named else "fewer than named"
        if not found <= named or ran not in _FUSED:
            verdict, wrong = f"NOT NAMED: {sorted(found - named)}", wrong + 1
        saturating += bool(found)
        print(f"{case}: {ran}, {len(found)} pairs of {len(named)} saturate, {verdict}", flush=True)
    print(f"{wrong} cases are wrong; {saturating} saturate")
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
