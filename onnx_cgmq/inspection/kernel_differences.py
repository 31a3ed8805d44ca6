"""Finds nodes for which onnxruntime runs another kernel than was predicted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from onnx_cgmq.gating.predicted_kernels import KernelChoice
from onnx_cgmq.inspection.report import Report


def kernel_differences(predicted: Mapping[str, KernelChoice], report: Report) -> Iterator[str]:
    """Writes a note on every MAC node that runs in another kernel than was predicted.

    Args:
        predicted: The predicted kernels by node name.
        report: The report on the written model, with kernels. Nodes whose kernel is unknown are
            left out.
    """
    for node in report.nodes:
        choice = predicted.get(node.name)
        if choice is None or node.kernel is None or node.kernel is choice.kernel:
            continue
        expected = choice.kernel.value if choice.kernel else "unknown"
        why = f": {node.reason or choice.reason}"
        yield (
            f"node '{node.name}' ({node.op_type}): onnxruntime runs the kernel "
            f"'{node.kernel.value}', but '{expected}' was predicted{why}; please report this as a "
            "bug of onnx-cgmq"
        )
