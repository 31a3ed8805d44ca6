"""What onnxruntime runs otherwise than predicted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx_ir as ir

from onnx_cgmq.graph.kernels import KernelChoice
from onnx_cgmq.inspection.report import Report


def surprises(predicted: Mapping[ir.Node, KernelChoice], report: Report) -> Iterator[str]:
    """A sentence for every MAC node that has another kernel than was predicted.

    Args:
        predicted: Kernels of the nodes of the gated graph.
        report: On the written model, with kernels. Those that it can't tell are no surprise.
    """
    choices = {str(node.name): choice for node, choice in predicted.items()}
    for node in report.nodes:
        choice = choices.get(node.name)
        if choice is None or node.kernel is None or node.kernel is choice.kernel:
            continue
        expected = choice.kernel.value if choice.kernel else "unknown"
        why = f": {node.reason or choice.reason}"
        yield (
            f"onnxruntime runs node '{node.name}' ({node.op_type}) in a kernel that is "
            f"{node.kernel.value}, not {expected} as predicted{why}; please report it"
        )
