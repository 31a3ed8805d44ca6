"""If, Loop and Scan. Gradients pass through the subgraphs that ran."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from onnx_cgmq.mirror.core.program import BoundBody
from onnx_cgmq.mirror.core.registry import Context, onnx_op


@onnx_op("If", bodies=("then_branch", "else_branch"))
def if_(
    ctx: Context, then_branch: BoundBody, else_branch: BoundBody, condition: Tensor
) -> tuple[Any, ...]:
    """The outputs of one of two subgraphs."""
    return tuple(then_branch() if bool(condition) else else_branch())


@onnx_op("Loop", bodies=("body",))
def loop(
    ctx: Context,
    body: BoundBody,
    limit: Tensor | None,
    condition: Tensor | None,
    *carried: Any,
) -> tuple[Any, ...]:
    """Runs a subgraph while its condition holds, up to a number of times.

    Values are carried from one run to the next; further outputs of the runs are stacked.
    """
    count = None if limit is None else int(limit)
    going = condition is None or bool(condition)
    rows: list[list[Tensor]] = []
    number = 0
    while going and (count is None or number < count):
        begins = (torch.tensor(value, device=ctx.device) for value in (number, going))
        outputs = body(*begins, *carried)
        going = bool(outputs[0])
        carried = tuple(outputs[1 : len(carried) + 1])
        rows.append(outputs[len(carried) + 1 :])
        number += 1
    return (*carried, *_stacked(body, rows, len(carried) + 1))


@onnx_op("Scan", since=9, bodies=("body",))
def scan(ctx: Context, body: BoundBody, *values: Tensor) -> tuple[Tensor, ...]:
    """Runs a subgraph on the items of sequences, along any axis, in either direction."""
    states, sequences = _split(ctx, values)
    axes = ctx.integers("scan_input_axes") or (0,) * len(sequences)
    backward = ctx.integers("scan_input_directions") or (0,) * len(sequences)
    items = [
        _ordered(sequence.unbind(axis), reverse)
        for sequence, axis, reverse in zip(sequences, axes, backward, strict=True)
    ]
    states, rows = _scanned(body, states, items)
    out_axes = ctx.integers("scan_output_axes") or ()
    out_backward = ctx.integers("scan_output_directions") or ()
    return (*states, *_stacked(body, rows, len(states), out_axes, out_backward))


@onnx_op("Scan", since=8, bodies=("body",))
def scan_batch(
    ctx: Context, body: BoundBody, lengths: Tensor | None, *values: Tensor
) -> tuple[Tensor, ...]:
    """The first form of Scan: a batch of sequences ``[batch, time, ...]``, each of its own length.

    What lies behind the end of a shorter sequence is zero.
    """
    states, sequences = _split(ctx, values)
    batch, longest = sequences[0].shape[:2]
    backward = ctx.integers("directions") or (0,) * len(sequences)
    results = []
    for row in range(batch):
        length = longest if lengths is None else int(lengths[row])
        items = [
            _ordered(sequence[row, :length].unbind(0), reverse)
            for sequence, reverse in zip(sequences, backward, strict=True)
        ]
        last, rows = _scanned(body, tuple(state[row] for state in states), items)
        scanned = [
            torch.cat([y, y.new_zeros(longest - length, *y.shape[1:])])
            for y in _stacked(body, rows, len(states))
        ]
        results.append([*last, *scanned])
    return tuple(torch.stack(column) for column in zip(*results, strict=True))


def _split(
    ctx: Context, values: tuple[Tensor, ...]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Initial states and sequences."""
    first = len(values) - ctx.integer("num_scan_inputs")
    return values[:first], values[first:]


def _ordered(items: tuple[Tensor, ...], reverse: int) -> tuple[Tensor, ...]:
    return items[::-1] if reverse else items


def _scanned(
    body: BoundBody, states: tuple[Tensor, ...], items: Sequence[Sequence[Tensor]]
) -> tuple[tuple[Tensor, ...], list[list[Tensor]]]:
    """The last states, and the other outputs of every run."""
    rows = []
    for step in zip(*items, strict=True):
        outputs = body(*states, *step)
        states = tuple(outputs[: len(states)])
        rows.append(outputs[len(states) :])
    return states, rows


def _stacked(
    body: BoundBody,
    rows: Sequence[Sequence[Tensor]],
    first: int,
    axes: Sequence[int] = (),
    backward: Sequence[int] = (),
) -> list[Tensor]:
    """The outputs of the runs from output ``first`` on, stacked along a new axis.

    Args:
        body: The subgraph that ran.
        rows: Its outputs from ``first`` on, one list for every run.
        first: Index of the first output to stack.
        axes: The new axis of every output, 0 by default.
        backward: Whether to stack the last run first.
    """
    count = body.output_count - first
    axes, backward = axes or [0] * count, backward or [0] * count
    if not rows:
        return [body.no_items(first + i, axis) for i, axis in enumerate(axes)]
    columns = zip(*rows, strict=True)
    return [
        torch.stack(_ordered(column, reverse), dim=axis)
        for column, axis, reverse in zip(columns, axes, backward, strict=True)
    ]
