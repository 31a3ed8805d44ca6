"""Nodes for which onnxruntime runs another kernel than was predicted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from onnx_cgmq.gating.predicted_kernels import KernelChoice
from onnx_cgmq.inspection.report import Report


def kernel_differences(predicted: Mapping[str, KernelChoice], report: Report) -> Iterator[str]:
    """A sentence for every MAC node that has another kernel than was predicted.

    Args:
        predicted: Kernels of the nodes of the gated graph, by node name.
        report: On the written model, with kernels. Those that it can't tell are no difference.
    """
    for node in report.nodes:
        choice = predicted.get(node.name)
        if choice is None or node.kernel is None or node.kernel is choice.kernel:
            continue
        expected = choice.kernel.value if choice.kernel else "unknown"
        why = f": {node.reason or choice.reason}"
        yield (
            f"onnxruntime runs node '{node.name}' ({node.op_type}) in a kernel that is "
            f"{node.kernel.value}, not {expected} as predicted{why}; please report it"
        )
