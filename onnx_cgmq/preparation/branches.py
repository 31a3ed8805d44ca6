"""Inlines branches that are always taken, and removes the Identity nodes that this leaves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import onnx_ir as ir
from onnx_ir.passes import common

from onnx_cgmq.contract.decisions import Verdict, decide
from onnx_cgmq.graph.nodes import node_key, standard_op

_HIDDEN_DOMAIN: Final = "onnx_cgmq.hidden"


def inline_constant_branches(model: ir.Model) -> bool:
    """Replaces every ``If`` whose condition is constant by the branch that it takes, in place.

    Returns:
        Whether there was such a node. Names of nodes and values are unique again afterwards.
    """
    found = False
    for graph in list(model.graphs()):
        for node in list(graph):
            found = _inline(node) or found
    if found:
        common.NameFixPass()(model)
    return found


@contextmanager
def hidden_branches(model: ir.Model) -> Iterator[None]:
    """Hides ``If`` nodes from passes within the context, but not the nodes in their branches.

    onnxscript's constant folding would inline ``If`` nodes too, and it fails if a branch returns a
    value of another graph.
    """
    nodes = [node for graph in model.graphs() for node in graph if standard_op(node) == "If"]
    domains = [node.domain for node in nodes]
    for node in nodes:
        node.domain = _HIDDEN_DOMAIN
    try:
        yield
    finally:
        for node, domain in zip(nodes, domains, strict=True):
            node.domain = domain


def remove_identities(model: ir.Model) -> None:
    """Removes Identity nodes, in place, except those that a branch needs to return an outer value.

    The pass of ``onnx_ir`` removes these as well, and onnxruntime then refuses the model.
    """
    for graph in model.graphs():
        for node in list(graph):
            source, result = node.inputs[0] if node.inputs else None, node.outputs[0]
            if standard_op(node) != "Identity" or source is None:
                continue
            if result.is_graph_output():
                producer = source.producer()
                if producer is None or producer.graph is not graph or source.is_graph_output():
                    continue
                name, result.name = result.name, None
                source.name, source.type = name, source.type or result.type
                source.shape = source.shape or result.shape
            ir.convenience.replace_all_uses_with(result, source, replace_graph_outputs=True)
            graph.remove(node, safe=True)


def _inline(node: ir.Node) -> bool:
    condition = node.inputs[0].const_value if standard_op(node) == "If" and node.inputs[0] else None
    graph = node.graph
    if condition is None or graph is None:
        return False
    taken, other = "then_branch", "else_branch"
    if not condition.numpy().item():
        taken, other = other, taken
    decide(node.name or node_key(node), Verdict.REWRITTEN, f"it always takes its {taken}")
    # Otherwise the nodes of the other branch would still count as readers of weights.
    for dead in node.attributes[other].as_graph().all_nodes():
        for index in range(len(dead.inputs)):
            dead.replace_input_with(index, None)
    branch = node.attributes[taken].as_graph()
    results, nodes = list(branch.outputs), list(branch)
    branch.outputs.clear()
    for value in list(branch.initializers.values()):
        branch.initializers.pop(str(value.name))
        value.name = f"{node.name}.{value.name}"
        graph.register_initializer(value)
    branch.remove(nodes)
    graph.insert_before(node, nodes)
    for old, result in zip(node.outputs, results, strict=True):
        # An Identity gives the output its name, because the result itself may be an input, a
        # constant, or a value from outside the branch.
        identity = ir.node("Identity", [result])
        new = identity.outputs[0]
        new.name, new.type, new.shape = old.name, result.type, result.shape
        old.name = None
        graph.insert_before(node, identity)
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    return True
