"""Finds nodes for which onnxruntime runs another kernel than was predicted, or a slow one."""

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


def slow_kernels(report: Report) -> Iterator[str]:
    """Writes a note on the nodes that run in slow integer kernels, if there are any.

    Args:
        report: The report on the written model, with kernels.
    """
    slow = [node for node in report.nodes if node.slow]
    if slow:
        more = f" and {len(slow) - 1} more" if len(slow) > 1 else ""
        yield (
            f"slow integer kernels run node '{slow[0].name}' ({slow[0].op_type}){more}: "
            f"{slow[0].reason}. Weights with a width for each element are written so where INT8 "
            "could saturate; granularity 'channel' or 'tensor' gives INT8"
        )
