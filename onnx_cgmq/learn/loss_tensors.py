"""Chooses the tensors that the loss compares: outputs, or the last tensors before a choice.

A detection model ends in operators that choose (non-maximum suppression, the best K). A choice has
no gradient, and two different choices can't be compared. There the loss compares the tensors that
are chosen from: boxes before they are picked, scores before they are ranked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.operators import Dependence, dependence_of
from onnx_cgmq.graph.uses import values_read
from onnx_cgmq.mirror.module import Mirror

_NodesWithReads = Sequence[tuple[ir.Node, tuple[ir.Value, ...]]]
"""The nodes in the order of the graph, each with all values that it reads."""


@dataclass(frozen=True)
class LossTensors:
    """The tensors that the loss compares.

    Attributes:
        names: Names of outputs, and of the last tensors with a gradient before a choice.
        without_gradient: The nodes that no gradient passes through, as in
            ``NonMaxSuppression 'nms'``. It is empty if the loss compares outputs only.
    """

    names: tuple[str, ...]
    without_gradient: tuple[str, ...]

    @property
    def text(self) -> str:
        """A sentence that says where the loss is taken, and why."""
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
    """Chooses the tensors that the loss compares, by tracing gradients of weights on a batch.

    Args:
        mirror: The mirror of the float model.
        inputs: A batch of inputs.
        weights: Names of the tensors that are learned as weights.
        all_outputs: Include outputs that can't be compared, for a loss of the user's own.

    Returns:
        The outputs that have a gradient to a weight and depend on no choice. Other outputs may
        depend on tensors that get no gradient from these. Of such tensors, the last ones that have
        a gradient are included too.

    Raises:
        ModelError: No tensor that an output depends on has a gradient to a weight.
    """
    graph = mirror.model.graph
    nodes = [(node, tuple(values_read(node))) for node in graph]
    comparable, with_gradient = _trace(graph, nodes, _observe(mirror, inputs), frozenset(weights))
    needed = _needed(graph.outputs, nodes)
    sources = [value for value in graph.outputs if value in comparable]
    not_reached = (comparable & needed) - _reached(sources, nodes, with_gradient)
    before_choice: list[ir.Value] = []
    passed_on: set[ir.Value] = set()
    cutting: list[ir.Node] = []
    for node, reads in nodes:
        outputs = needed.intersection(node.outputs)
        if dependence_of(node) is Dependence.ON_SHAPES or not outputs:
            continue
        if not with_gradient.isdisjoint(reads) and not outputs <= with_gradient:
            cutting.append(node)
        found = not_reached.intersection(reads)
        if comparable.isdisjoint(outputs):
            before_choice += [value for value in dict.fromkeys(reads) if value in found]
        else:
            passed_on |= found
    last = [
        value
        for value in dict.fromkeys(before_choice)
        if value not in passed_on and value.producer() is not None and value.name not in weights
    ]
    if not sources and not last:
        raise ModelError(
            f"no gradient comes back from the outputs ({', '.join(mirror.output_names)}) to any "
            "weight that is to be quantized; remove what follows the last layer from the model"
        )
    compared = mirror.output_names if all_outputs else tuple(str(v.name) for v in sources)
    return LossTensors(
        names=(*compared, *(str(value.name) for value in last)),
        without_gradient=tuple(f"{node.op_type} '{node.name}'" for node in cutting) if last else (),
    )


def _observe(mirror: Mirror, inputs: Mapping[str, Tensor]) -> dict[str, tuple[bool, bool]]:
    """Returns for every computed value whether it has a gradient in torch, and is an integer."""
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


def _trace(
    graph: ir.Graph,
    nodes: _NodesWithReads,
    observed: Mapping[str, tuple[bool, bool]],
    weights: frozenset[str],
) -> tuple[set[ir.Value], set[ir.Value]]:
    """Returns the values with a gradient that can be compared, and all values with a gradient.

    A value can't be compared if an index that depends on weights picked it. The outputs of a later
    layer with weights can be compared again. A value whose size depends on weights can't be
    compared, and neither can anything that depends on it.
    """
    with_gradient = {value for _, reads in nodes for value in reads if value.name in weights}
    cut_off: set[ir.Value] = set()  # values that depend on weights, but have no gradient
    picked: set[ir.Value] = set()  # integers of these, and what they select
    sized: set[ir.Value] = set()  # values whose size depends on weights
    for node, reads in nodes:
        depends = not with_gradient.isdisjoint(reads)
        follows = not cut_off.isdisjoint(reads)
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
            # Torch has a gradient for operators that change in jumps, but it is zero.
            if depends and has_gradient and dependence_of(node) is not Dependence.FLAT:
                with_gradient.add(value)
            elif depends or follows:
                cut_off.add(value)
                if is_integer:
                    picked.add(value)
    return with_gradient - picked - sized, with_gradient


def _needed(outputs: Iterable[ir.Value], nodes: _NodesWithReads) -> set[ir.Value]:
    """Returns the values on whose contents, not only on whose shapes, the outputs depend."""
    needed = set(outputs)
    for node, reads in reversed(nodes):
        if dependence_of(node) is not Dependence.ON_SHAPES and not needed.isdisjoint(node.outputs):
            needed.update(reads)
    return needed


def _reached(
    sources: Iterable[ir.Value], nodes: _NodesWithReads, with_gradient: set[ir.Value]
) -> set[ir.Value]:
    """Returns the values that get a gradient from a loss at ``sources``."""
    reached = set(sources)
    for node, reads in reversed(nodes):
        if not reached.isdisjoint(node.outputs):
            reached.update(with_gradient.intersection(reads))
    return reached
