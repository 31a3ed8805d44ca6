"""Sequences, which are Python lists of tensors, and optionals, which may be ``None``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from onnx_cgmq.mirror.core.program import BoundBody
from onnx_cgmq.mirror.core.registry import Context, onnx_op
from onnx_cgmq.mirror.ops.host import number


@onnx_op("SequenceEmpty", since=11)
def sequence_empty(ctx: Context) -> list[Tensor]:
    """An empty sequence."""
    return []


@onnx_op("SequenceConstruct", since=11)
def sequence_construct(ctx: Context, *xs: Tensor) -> list[Tensor]:
    """A sequence of the inputs."""
    return list(xs)


@onnx_op("SequenceInsert", since=11, host=(2,))
def sequence_insert(
    ctx: Context, sequence: list[Tensor], x: Tensor, position: Any = None
) -> list[Tensor]:
    """A sequence with one more tensor, at the end by default."""
    index = len(sequence) if position is None else _index(sequence, position, extra=1)
    return [*sequence[:index], x, *sequence[index:]]


@onnx_op("SequenceErase", since=11, host=(1,))
def sequence_erase(ctx: Context, sequence: list[Tensor], position: Any = None) -> list[Tensor]:
    """A sequence without one of its tensors, the last by default."""
    index = _index(sequence, -1 if position is None else position)
    return [*sequence[:index], *sequence[index + 1 :]]


@onnx_op("SequenceAt", since=11, host=(1,))
def sequence_at(ctx: Context, sequence: list[Tensor], position: Any) -> Tensor:
    """A tensor of a sequence."""
    return sequence[_index(sequence, position)]


@onnx_op("SequenceLength", since=11)
def sequence_length(ctx: Context, sequence: list[Tensor]) -> Tensor:
    """Number of tensors, int64."""
    return torch.tensor(len(sequence), device=ctx.device)


@onnx_op("SplitToSequence", since=11, host=(1,))
def split_to_sequence(ctx: Context, x: Tensor, split: Any = None) -> list[Tensor]:
    """Parts along an axis: single slices, parts of one size, or of the sizes given."""
    axis = ctx.integer("axis")
    if split is None:
        keep = ctx.flag("keepdims", True)
        return list(torch.split(x, 1, dim=axis) if keep else x.unbind(dim=axis))
    return list(torch.split(x, split, dim=axis))


@onnx_op("ConcatFromSequence", since=11)
def concat_from_sequence(ctx: Context, sequence: list[Tensor]) -> Tensor:
    """Joins the tensors along an axis, or along a new one."""
    join = torch.stack if ctx.flag("new_axis") else torch.cat
    return join(sequence, dim=ctx.integer("axis"))


@onnx_op("SequenceMap", since=17, bodies=("body",))
def sequence_map(
    ctx: Context, body: BoundBody, sequence: list[Tensor], *others: Any
) -> tuple[list[Tensor], ...]:
    """Runs a subgraph on every item of a sequence.

    Of other sequences it also gets the item at that place; it gets other tensors whole.
    """
    rows = [
        body(item, *(other[i] if isinstance(other, list) else other for other in others))
        for i, item in enumerate(sequence)
    ]
    return tuple([row[output] for row in rows] for output in range(body.output_count))


@onnx_op("Optional", since=15)
def optional(ctx: Context, x: Any = None) -> Any:
    """Makes an optional that holds the input, or an empty one."""
    return x


@onnx_op("OptionalHasElement", since=15)
def optional_has_element(ctx: Context, x: Any = None) -> Tensor:
    """Whether an optional holds a value."""
    return torch.tensor(x is not None, device=ctx.device)


@onnx_op("OptionalGetElement", since=15)
def optional_get_element(ctx: Context, x: Any) -> Any:
    """The value that an optional holds."""
    if x is None:
        raise ValueError("the optional is empty")
    return x


def _index(sequence: list[Tensor], position: Any, extra: int = 0) -> int:
    """A position from the start.

    Raises:
        IndexError: If the sequence has no such position.
    """
    index = int(number(position))
    index += len(sequence) if index < 0 else 0
    if not 0 <= index < len(sequence) + extra:
        raise IndexError(f"a sequence of {len(sequence)} tensors has no position {position}")
    return index
