"""RNN, GRU and LSTM: torch's fused kernels where they compute the same, else step by step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from onnx_cgmq.mirror.core.registry import Context, onnx_op
from onnx_cgmq.mirror.ops.recurrent_cells import (
    SIGMOID,
    TANH,
    Step,
    activations_of,
    gru_step,
    gru_step_linear_before_reset,
    lstm_step,
    rnn_step,
)
from onnx_cgmq.mirror.ops.recurrent_run import Cell, Direction, Kernel, fused, reverse, unrolled

_DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
_DEFAULT = {"RNN": (TANH,), "GRU": (SIGMOID, TANH), "LSTM": (SIGMOID, TANH, TANH)}
_RNN_KERNELS: dict[str, Kernel] = {"tanh": torch.rnn_tanh, "relu": torch.rnn_relu}


def _check(ctx: Context) -> str | None:
    direction = ctx.text("direction", "forward")
    if direction not in _DIRECTIONS:
        return f"unknown direction '{direction}'"
    count = _DIRECTIONS[direction] * len(_DEFAULT[ctx.op_type])
    try:
        activations = activations_of(ctx, _DEFAULT[ctx.op_type] * _DIRECTIONS[direction])
    except ValueError as error:
        return str(error)
    return None if len(activations) == count else f"{len(activations)} activations, not {count}"


@onnx_op("RNN", since=7, host=(4,), check=_check)
def rnn(
    ctx: Context,
    x: Tensor,
    weight: Tensor,
    recurrence: Tensor,
    bias: Tensor | None = None,
    lengths: Sequence[int] | None = None,
    hidden: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Elman's network: ``H = f(X W' + H R' + b)``; all outputs, and the last one."""
    limit = ctx.real("clip")

    def step(part: Direction) -> Step:
        return rnn_step(part.activations[0], part.recurrence, limit)

    parts = _directions(ctx, weight, recurrence, bias)
    names = {part.activations[0].name for part in parts}
    kernel = _RNN_KERNELS.get(names.pop()) if len(names) == 1 and limit <= 0 else None
    return _run(ctx, x, parts, (hidden,), lengths, Cell(step, (0,), kernel))


@onnx_op("GRU", since=7, host=(4,), check=_check)
def gru(
    ctx: Context,
    x: Tensor,
    weight: Tensor,
    recurrence: Tensor,
    bias: Tensor | None = None,
    lengths: Sequence[int] | None = None,
    hidden: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Gated recurrent units; all outputs, and the last one."""
    limit, linear = ctx.real("clip"), ctx.flag("linear_before_reset")

    def step(part: Direction) -> Step:
        f, g = part.activations
        if linear:
            own = part.biases()[1]
            return gru_step_linear_before_reset(f, g, part.recurrence, own, limit)
        return gru_step(f, g, part.recurrence, limit)

    parts = _directions(ctx, weight, recurrence, bias)
    kernel = torch.gru if linear and limit <= 0 and _usual(ctx, parts) else None
    return _run(ctx, x, parts, (hidden,), lengths, Cell(step, (1, 0, 2), kernel, apart=linear))


@onnx_op("LSTM", since=7, host=(4,), check=_check)
def lstm(
    ctx: Context,
    x: Tensor,
    weight: Tensor,
    recurrence: Tensor,
    bias: Tensor | None = None,
    lengths: Sequence[int] | None = None,
    hidden: Tensor | None = None,
    cell: Tensor | None = None,
    peephole: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Long short-term memory; all outputs, the last one, and the last cell state."""
    limit, coupled = ctx.real("clip"), ctx.flag("input_forget")

    def step(part: Direction) -> Step:
        return lstm_step(part.activations, part.recurrence, part.peephole, limit, coupled)

    parts = _directions(ctx, weight, recurrence, bias, peephole)
    plain = peephole is None and not coupled and limit <= 0 and _usual(ctx, parts)
    kernel = torch.lstm if plain else None
    return _run(ctx, x, parts, (hidden, cell), lengths, Cell(step, (0, 2, 3, 1), kernel))


def _directions(
    ctx: Context,
    weight: Tensor,
    recurrence: Tensor,
    bias: Tensor | None,
    peephole: Tensor | None = None,
) -> list[Direction]:
    default = _DEFAULT[ctx.op_type]
    count, width = _DIRECTIONS[ctx.text("direction", "forward")], len(default)
    if weight.shape[0] != count:
        raise ValueError(f"W has {weight.shape[0]} directions, not {count}")
    activations = activations_of(ctx, default * count)
    return [
        Direction(
            weight[index],
            recurrence[index],
            None if bias is None else bias[index],
            None if peephole is None else peephole[index],
            activations[index * width : (index + 1) * width],
        )
        for index in range(count)
    ]


def _usual(ctx: Context, parts: Sequence[Direction]) -> bool:
    return all(part.activations == _DEFAULT[ctx.op_type] for part in parts)


def _run(
    ctx: Context,
    x: Tensor,
    parts: Sequence[Direction],
    initial: Sequence[Tensor | None],
    lengths: Sequence[int] | None,
    cell: Cell,
) -> tuple[Tensor, ...]:
    """All outputs ``[time, direction, batch, hidden]`` and last states (as ``layout`` has it).

    Args:
        ctx: The node.
        x: ``[time, batch, input]``; or batch first, if ``layout`` is 1.
        parts: The directions.
        initial: Initial states, zero where ``None``.
        lengths: Length of every sequence; outputs behind it are zero.
        cell: How the operator computes.
    """
    batch_first = ctx.flag("layout")
    x = x.transpose(0, 1) if batch_first else x
    shape = (len(parts), x.shape[1], parts[0].recurrence.shape[1])
    states = [
        x.new_zeros(shape) if s is None else s.transpose(0, 1) if batch_first else s
        for s in initial
    ]
    if lengths is not None and all(length == x.shape[0] for length in lengths):
        lengths = None
    backward = ctx.text("direction", "forward") == "reverse"
    x = reverse(x, lengths) if backward else x
    # Torch's kernels know no empty sequences.
    if cell.kernel is not None and (x.shape[0] if lengths is None else min(lengths)) > 0:
        y, finals = fused(cell.kernel, x, parts, states, lengths, cell)
    else:
        y, finals = unrolled(x, parts, states, lengths, cell)
    y = reverse(y, lengths) if backward else y
    if batch_first:
        return y.permute(2, 0, 1, 3), *(final.transpose(0, 1) for final in finals)
    return y, *finals
