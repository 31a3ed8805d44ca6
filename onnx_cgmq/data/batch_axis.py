"""Which inputs of a model have a batch axis, along which samples are stacked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import onnx_ir as ir

from onnx_cgmq.contract.identifiers import GATED_DOMAIN, QUANT_DOMAINS

_RECURRENT: Final = frozenset({"GRU", "LSTM", "RNN"})

_SEQUENCE_AND_STATES: Final = (0, 5, 6)
"""Inputs of a recurrent operator that have a batch axis: the sequence and the first states."""

_KEEP_AXES: Final = frozenset(
    {"Add", "Cast", "Clip", "DequantizeLinear", "Div", "Identity", "Mul", "QuantizeLinear"}
    | {"Relu", "Round", "Sub"}
)
"""Elementwise operators that may stand between an input and the operator that reads it."""


def unbatched_inputs(model: ir.Model) -> frozenset[str]:
    """Names of the inputs whose axis 0 does not count samples: a sample is one whole array.

    These are scalars; and all inputs, if a recurrent operator reads one time first, if they fix
    different sizes on axis 0, or one that no output has (an image without a batch axis), or if one
    has its batch on a later axis (two states of a recurrent network, ``[2, batch, 128]``).
    """
    inputs = {
        str(value.name): value
        for value in model.graph.inputs
        if value.name not in model.graph.initializers
    }
    whole = {n for n, value in inputs.items() if value.shape is not None and not value.shape}
    first = {name: value.shape[0] for name, value in inputs.items() if value.shape}
    fixed = {size for size in first.values() if isinstance(size, int)}
    if max(fixed, default=1) > 1 and _batch_is_later(model, inputs.values()):
        return frozenset(inputs)
    if len(fixed) > 1 or not _read_time_first(model).isdisjoint(inputs):
        return frozenset(inputs)
    if fixed and all(isinstance(size, int) for size in first.values()):
        (batch,) = fixed
        outputs = [value.shape for value in model.graph.outputs]
        if batch > 1 and outputs and not any(_may_hold(shape, batch) for shape in outputs):
            return frozenset(inputs)
    return frozenset(whole)


def _batch_is_later(model: ir.Model, inputs: Iterable[ir.Value]) -> bool:
    """Whether an input that fixes axis 0 has on a later one what others have there: the batch.

    Without names of sizes this is so if some input and all outputs leave axis 0 open.
    """
    shapes = [value.shape for value in inputs if value.shape]
    names = {_label(shape[0]) for shape in shapes if not isinstance(shape[0], int)}
    if names == {None}:
        outputs = [value.shape for value in model.graph.outputs]
        return all(shape and not isinstance(shape[0], int) for shape in outputs)
    later = {_label(dim) for s in shapes if isinstance(s[0], int) for dim in s[1:]}
    return not (names - {None}).isdisjoint(later)


def _label(dim: int | ir.SymbolicDim) -> str | None:
    """The name of a size, if it has one; some exporters call every size ``?``."""
    return None if isinstance(dim, int) or dim.value in ("", "?") else dim.value


def _may_hold(shape: ir.Shape | None, batch: int) -> bool:
    """Whether an output may have an entry, or several, for each sample of a batch."""
    if shape is None:
        return True
    first = shape[0] if shape else 1
    return not isinstance(first, int) or first % batch == 0


def _read_time_first(model: ir.Model) -> set[str]:
    """Values that recurrent operators read as sequence or first state: their batch is axis 1."""
    found = set()
    for node in model.graph:
        layout = node.attributes.get("layout")
        if not _is_one_of(node, _RECURRENT) or (layout is not None and layout.as_int()):
            continue
        for index in _SEQUENCE_AND_STATES:
            value = node.inputs[index] if index < len(node.inputs) else None
            while value is not None and (above := value.producer()) is not None:
                if not (
                    above.domain in (GATED_DOMAIN, *QUANT_DOMAINS) or _is_one_of(above, _KEEP_AXES)
                ):
                    break
                value = above.inputs[0]
            if value is not None:
                found.add(str(value.name))
    return found


def _is_one_of(node: ir.Node, operators: frozenset[str]) -> bool:
    return node.domain in ("", "ai.onnx") and node.op_type in operators
