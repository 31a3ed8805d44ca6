"""Where the loss is taken: at the outputs, or at the last tensors that a gradient passes through.

A detection model ends in operators that choose (non-maximum suppression, the best K). A choice has
no gradient, and what two models chose differently can't be compared. There the loss is taken at
what is chosen from: boxes before they are picked, scores before they are ranked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.operators import Dependence, dependence_of
from onnx_cgmq.mirror.module import Mirror

_Nodes = Sequence[tuple[ir.Node, tuple[ir.Value, ...]]]
"""Nodes in order, each with all values that it reads."""


@dataclass(frozen=True)
class LossTensors:
    """Where the loss is taken.

    Attributes:
        names: Outputs, and the last differentiable tensors before a choice.
        without_gradient: If there are such tensors, the nodes without a gradient, as in
            ``NonMaxSuppression 'nms'``.
    """

    names: tuple[str, ...]
    without_gradient: tuple[str, ...]

    @property
    def text(self) -> str:
        """One sentence for the user."""
        return (
            f"no gradient passes through {', '.join(self.without_gradient)}; the loss is taken at "
            f"{', '.join(self.names)}"
        )


def loss_tensors(
    mirror: Mirror,
    inputs: Mapping[str, Tensor],
    weights: Collection[str],
    *,
    all_outputs: bool = False,
) -> LossTensors:
    """Chooses where the loss is taken, by following the gradients of the weights on a batch.

    Args:
        mirror: The mirror of the float model.
        inputs: A batch for it.
        weights: Names of the tensors that are learned as weights.
        all_outputs: Keep the outputs that can't be compared too, for a loss of the user's own.

    Returns:
        The outputs that a gradient comes from and that depend on no choice; and, where these leave
        out tensors that other outputs depend on, the last differentiable ones of them.

    Raises:
        ModelError: No tensor that an output depends on has a gradient to a weight.
    """
    graph = mirror.model.graph
    nodes = [(node, tuple(_reads(node))) for node in graph]
    smooth, live = _follow(graph, nodes, _observe(mirror, inputs), frozenset(weights))
    needed = _needed(graph.outputs, nodes)
    ends = [value for value in graph.outputs if value in smooth]
    missed = (smooth & needed) - _reached(ends, nodes, live)
    ending: list[ir.Value] = []
    continued: set[ir.Value] = set()
    blocking: list[ir.Node] = []
    for node, reads in nodes:
        outputs = needed.intersection(node.outputs)
        if dependence_of(node) is Dependence.ON_SHAPES or not outputs:
            continue
        if not live.isdisjoint(reads) and not outputs <= live:
            blocking.append(node)
        found = missed.intersection(reads)
        if smooth.isdisjoint(outputs):
            ending += [value for value in dict.fromkeys(reads) if value in found]
        else:
            continued |= found
    last = [
        value
        for value in dict.fromkeys(ending)
        if value not in continued and value.producer() is not None and value.name not in weights
    ]
    if not ends and not last:
        raise ModelError(
            f"no gradient comes back from the outputs ({', '.join(mirror.output_names)}) to any "
            "weight that is to be quantized; remove what follows the last layer from the model"
        )
    compared = (*(graph.outputs if all_outputs else ends), *last)
    return LossTensors(
        names=tuple(str(value.name) for value in compared),
        without_gradient=tuple(f"{node.op_type} '{node.name}'" for node in blocking)
        if last
        else (),
    )


def _reads(node: ir.Node) -> Iterator[ir.Value]:
    """The inputs of a node, and what its subgraphs read (their own values do no harm)."""
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        if attribute.type is ir.AttributeType.GRAPH:
            body = attribute.as_graph()
            yield from body.outputs
            for inner in body:
                yield from _reads(inner)


def _observe(mirror: Mirror, inputs: Mapping[str, Tensor]) -> dict[str, tuple[bool, bool]]:
    """Of every computed value: whether torch has a gradient for it, and whether it is integer."""
    computed = [str(value.name) for node in mirror.model.graph for value in node.outputs]
    with torch.enable_grad():
        values = mirror.run(inputs, [name for name in computed if name in mirror.value_names])
    return {name: (_has_gradient(value), _is_integer(value)) for name, value in values.items()}


def _has_gradient(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_has_gradient, value))
    return isinstance(value, Tensor) and value.requires_grad


def _is_integer(value: Any) -> bool:
    return isinstance(value, Tensor) and not (
        value.is_floating_point() or value.dtype is torch.bool
    )


def _follow(
    graph: ir.Graph,
    nodes: _Nodes,
    observed: Mapping[str, tuple[bool, bool]],
    weights: frozenset[str],
) -> tuple[set[ir.Value], set[ir.Value]]:
    """The values that can be compared and have a gradient, and all that have a gradient.

    A value can't be compared if it was picked by an index that depends on weights, until it passes
    through a layer with weights of its own; nor, ever, if its size depends on weights.
    """
    live = {value for _, reads in nodes for value in reads if value.name in weights}
    decided: set[ir.Value] = set()  # depend on weights, but without a gradient
    picked: set[ir.Value] = set()
    sized: set[ir.Value] = set()
    for node, reads in nodes:
        depends = not live.isdisjoint(reads)
        follows = not decided.isdisjoint(reads)
        is_sized = not sized.isdisjoint(reads) or (
            dependence_of(node) is Dependence.IN_SIZE and (depends or follows)
        )
        has_weights = any(value.name in weights for value in reads)
        is_picked = not has_weights and not picked.isdisjoint(reads)
        for value in node.outputs:
            has_gradient, is_integer = observed.get(str(value.name), (False, False))
            if is_sized:
                sized.add(value)
            if is_picked:
                picked.add(value)
            if dependence_of(node) is Dependence.ON_SHAPES:
                continue
            # Torch has a gradient for operators that go in steps, but it is zero.
            if depends and has_gradient and dependence_of(node) is not Dependence.FLAT:
                live.add(value)
            elif depends or follows:
                decided.add(value)
                if is_integer:
                    picked.add(value)
    return live - picked - sized, live


def _needed(outputs: Iterable[ir.Value], nodes: _Nodes) -> set[ir.Value]:
    """The values whose contents, not only their shapes, the outputs depend on."""
    needed = set(outputs)
    for node, reads in reversed(nodes):
        if dependence_of(node) is not Dependence.ON_SHAPES and not needed.isdisjoint(node.outputs):
            needed.update(reads)
    return needed


def _reached(ends: Iterable[ir.Value], nodes: _Nodes, live: set[ir.Value]) -> set[ir.Value]:
    """The values that get a gradient from the ends."""
    reached = set(ends)
    for node, reads in reversed(nodes):
        if not reached.isdisjoint(node.outputs):
            reached.update(live.intersection(reads))
    return reached
