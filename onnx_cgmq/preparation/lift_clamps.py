"""Moves clamps (Relu, Clip) up through movers, so that they follow the kernel that they belong to.

Exporters squeeze or transpose the result of a convolution before its Relu. A quantizer at the
result would cover what the Relu cuts off. In front of the movers, the clamp becomes limits of the
codes: the range is that of the clamped values, and the movers move codes.
"""

from __future__ import annotations

import onnx_ir as ir

from onnx_cgmq.contract.decisions import Verdict, decide
from onnx_cgmq.graph.nodes import standard_op, text_attribute
from onnx_cgmq.graph.operators import is_clamp, mac_spec, moves_codes_fast, runs_on_codes
from onnx_cgmq.graph.uses import has_one_reader


def lift_clamps(graph: ir.Graph) -> None:
    """Moves clamps above the movers between them and a node with an integer kernel, in place.

    This is exact, because clamps and movers treat every element alike. A clamp stays where it is if
    anything else reads a value on the way, if its result is an output of the graph, or if it would
    change the zeros that Pad fills in.
    """
    for node in list(graph):
        if not is_clamp(node) or node.outputs[0].is_graph_output():
            continue
        movers = _movers_above(node)
        if not movers or not _comes_from_a_kernel(movers[-1].inputs[0]):
            continue
        why = _why_not(node, movers)
        if why:
            decide(node.name, Verdict.LEFT, why)
        else:
            reason = f"it becomes limits of codes in front of {movers[-1].op_type}"
            decide(node.name, Verdict.REWRITTEN, reason)
            _lift(graph, node, movers)


def _movers_above(clamp: ir.Node) -> list[ir.Node]:
    """Lists the movers above a clamp, the nearest first."""
    movers: list[ir.Node] = []
    node = clamp
    while node.inputs[0] is not None:
        above = node.inputs[0].producer()
        if above is None or above.graph is not clamp.graph or not moves_codes_fast(above):
            break
        movers.append(above)
        node = above
    return movers


def _comes_from_a_kernel(value: ir.Value | None) -> bool:
    """Says whether a node that may run in integers makes a float value, perhaps clamped."""
    node = None if value is None or value.dtype is not ir.DataType.FLOAT else value.producer()
    while node is not None and is_clamp(node):
        node = None if node.inputs[0] is None else node.inputs[0].producer()
    return node is not None and (mac_spec(node) is not None or runs_on_codes(node))


def _why_not(clamp: ir.Node, movers: list[ir.Node]) -> str:
    """Says why a clamp can't be moved above movers; the text is empty if it can."""
    for below, mover in zip([clamp, *movers], movers, strict=False):
        value = below.inputs[0]
        assert value is not None
        if not has_one_reader(value) or any(o.uses() for o in mover.outputs if o is not value):
            return f"other nodes read what {mover.op_type} '{mover.name}' makes too"
        if _fills_in_zeros(mover) and not _keeps_zero(clamp):
            return f"{mover.op_type} '{mover.name}' fills in zeros, which it would not change there"
    top = movers[-1].inputs[0]
    assert top is not None
    return "" if has_one_reader(top) else f"other nodes read '{top.name}' unclamped"


def _fills_in_zeros(mover: ir.Node) -> bool:
    return standard_op(mover) == "Pad" and text_attribute(mover, "mode", "constant") == "constant"


def _keeps_zero(clamp: ir.Node) -> bool:
    """Says whether a clamp leaves 0 as it is."""
    if standard_op(clamp) == "Relu":
        return True
    low, high = (_limit(clamp, index) for index in (1, 2))
    return (low is None or low <= 0) and (high is None or high >= 0)


def _limit(clip: ir.Node, index: int) -> float | None:
    value = clip.inputs[index] if index < len(clip.inputs) else None
    if value is None or value.const_value is None:
        return None
    return float(value.const_value.numpy().reshape(()))


def _lift(graph: ir.Graph, clamp: ir.Node, movers: list[ir.Node]) -> None:
    """Moves a clamp above movers. What was read of the clamp is made by the last mover now."""
    clamped, result, top = clamp.outputs[0], clamp.inputs[0], movers[-1].inputs[0]
    assert result is not None
    assert top is not None
    clamped.replace_all_uses_with(result)
    result.name = clamped.name
    graph.remove(clamp)
    clamp.replace_input_with(0, top)
    movers[-1].replace_input_with(0, clamped)
    graph.insert_before(movers[-1], clamp)
    clamped.name = f"{top.name}.clamped"
    clamped.shape = top.shape
