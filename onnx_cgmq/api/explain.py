"""Explains why a tensor has a quantizer, why a node is float, why a node was not rewritten."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import onnx_ir as ir
from typing_extensions import Unpack

from onnx_cgmq.contract.bits import FLOAT_BITS
from onnx_cgmq.contract.decisions import Decision, Verdict, collected_decisions
from onnx_cgmq.contract.form import written_form
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.gating.predicted_kernels import Kernel, narrowest_widths, predict_kernels
from onnx_cgmq.graph.files.load import ModelLike, load_model
from onnx_cgmq.graph.operators import is_quantized_operator
from onnx_cgmq.inspection import NodeReport, Report, inspect
from onnx_cgmq.preparation.prepare import prepare
from onnx_cgmq.settings.config import Config, Settings


def explain(
    model: ModelLike, names: Sequence[str] = (), **settings: Unpack[Settings]
) -> tuple[Decision, ...]:
    """Says why tensors and nodes of a model are quantized, float or rewritten.

    For a float model, it says what :func:`~onnx_cgmq.preparation.prepare.prepare` rewrites and
    leaves, where :func:`~onnx_cgmq.gating.insert.insert_gates` puts quantizers, and which nodes can
    run in integers at the narrowest widths. Nothing is learned or written. For a quantized model,
    it says which tensors its file quantizes, and which kernels onnxruntime runs.

    Args:
        model: Path, ``onnx.ModelProto`` or ``onnx_ir.Model``; it is not changed.
        names: Names of tensors and nodes, or patterns (``head/*``); by default all.
        **settings: Fields of :class:`~onnx_cgmq.settings.config.Config`, for a float model.

    Returns:
        The decisions, in the order in which they are made.

    Raises:
        ModelError: The model can't be read, or has nothing to quantize.
        ConfigError: A setting is invalid.
    """
    graph = load_model(model)
    if _is_quantized(graph):
        found = _decisions_of_report(inspect(model, kernels=True))
    else:
        config = Config.create(**settings)
        with collected_decisions() as found:
            gated = insert_gates(prepare(graph, runtime=config.runtime), config)
            predict_kernels(gated, narrowest_widths(gated))
    return tuple(
        decision
        for decision in found
        if not names or any(fnmatchcase(decision.name, name) for name in names)
    )


def _is_quantized(model: ir.Model) -> bool:
    nodes = (node for graph in model.graphs() for node in graph)
    return written_form(model) is not None or any(map(is_quantized_operator, nodes))


def _decisions_of_report(report: Report) -> list[Decision]:
    """Makes decisions of what a report says about its nodes and the tensors that they multiply."""
    found: dict[str, Decision] = {}
    for node in report.nodes:
        for operand, bits in zip(node.operands, node.bits, strict=True):
            read = f"{node.op_type} '{node.name}' multiplies it"
            quantized = operand in report.tensors and bits < FLOAT_BITS
            verdict = Verdict.QUANTIZED if quantized else Verdict.FLOAT
            why = f"{read} at {bits:.3g} bits" if quantized else "the file has no quantizer for it"
            found.setdefault(operand, Decision(operand, verdict, why))
    return [*found.values(), *filter(None, map(_decision_of_node, report.nodes))]


def _decision_of_node(node: NodeReport) -> Decision | None:
    if node.kernel is None:
        return None
    verdicts = {
        Kernel.INTEGER: Verdict.SLOW if node.slow else Verdict.INTEGER,
        Kernel.PACKED: Verdict.PACKED,
        Kernel.FLOAT: Verdict.FLOAT,
    }
    return Decision(node.name, verdicts[node.kernel], node.reason)
