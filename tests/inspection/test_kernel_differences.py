from __future__ import annotations

from dataclasses import replace

from onnx_cgmq.gating.predicted_kernels import Kernel, KernelChoice
from onnx_cgmq.inspection import NodeReport, Report
from onnx_cgmq.inspection.kernel_differences import kernel_differences, slow_kernels

NODES = tuple(
    NodeReport(name, op_type, ("a", "b"), 1, 64, 1 / 16, (8, 8), Kernel.INTEGER)
    for name, op_type in (("fc0", "Gemm"), ("fc1", "MatMul"), ("unpredicted", "Conv"))
)
REPORT = Report({}, NODES, 3, 192, 1 / 16, 0)


def predicted(first: Kernel, second: Kernel) -> dict[str, KernelChoice]:
    return {
        "fc0": KernelChoice(first),
        "fc1": KernelChoice(second, "why not"),
        "other": KernelChoice(Kernel.INTEGER),
    }


def test_equal_kernels_are_no_difference() -> None:
    assert list(kernel_differences(predicted(Kernel.INTEGER, Kernel.INTEGER), REPORT)) == []


def test_a_difference_names_its_node() -> None:
    (difference,) = kernel_differences(predicted(Kernel.INTEGER, Kernel.FLOAT), REPORT)
    assert difference.startswith("node 'fc1' (MatMul): onnxruntime runs the kernel 'integer'")
    assert "'float' was predicted" in difference
    assert "why not" in difference


def test_unknown_kernels_are_no_difference() -> None:
    unknown = replace(REPORT, nodes=tuple(replace(n, kernel=None) for n in REPORT.nodes))
    assert list(kernel_differences(predicted(Kernel.FLOAT, Kernel.FLOAT), unknown)) == []


def test_slow_kernels_are_named_in_one_note() -> None:
    assert list(slow_kernels(REPORT)) == []
    slow = tuple(replace(n, slow=True, reason="weight 'w' is UINT8") for n in REPORT.nodes)
    (note,) = slow_kernels(replace(REPORT, nodes=(NODES[0], *slow[1:])))
    assert note.startswith("slow integer kernels run node 'fc1' (MatMul) and 1 more: weight 'w'")
    (note,) = slow_kernels(replace(REPORT, nodes=slow[:1]))
    assert note.startswith("slow integer kernels run node 'fc0' (Gemm): weight 'w' is UINT8")
