from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from onnx_cgmq.graph.kernels import Kernel, KernelChoice
from onnx_cgmq.inspection import NodeReport, Report
from onnx_cgmq.inspection.surprises import surprises

NODES = tuple(
    NodeReport(name, op_type, ("a", "b"), 1, 64, 1 / 16, (8, 8), Kernel.INTEGER)
    for name, op_type in (("fc0", "Gemm"), ("fc1", "MatMul"), ("unpredicted", "Conv"))
)
REPORT = Report({}, NODES, 3, 192, 1 / 16, 0)


def predicted(first: Kernel, second: Kernel) -> dict[ir.Node, KernelChoice]:
    return {
        ir.node("Gemm", [], name="fc0"): KernelChoice(first),
        ir.node("MatMul", [], name="fc1"): KernelChoice(second, "why not"),
        ir.node("Add", [], name="other"): KernelChoice(Kernel.INTEGER),
    }


def test_nothing_to_say() -> None:
    assert list(surprises(predicted(Kernel.INTEGER, Kernel.INTEGER), REPORT)) == []


def test_the_node_is_named() -> None:
    (surprise,) = surprises(predicted(Kernel.INTEGER, Kernel.FLOAT), REPORT)
    assert "node 'fc1' (MatMul) in a kernel that is integer, not float as predicted" in surprise
    assert "why not" in surprise


def test_what_is_not_known_is_no_surprise() -> None:
    unknown = replace(REPORT, nodes=tuple(replace(n, kernel=None) for n in REPORT.nodes))
    assert list(surprises(predicted(Kernel.FLOAT, Kernel.FLOAT), unknown)) == []
