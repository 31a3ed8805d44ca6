"""Runs recurrent layers, by torch's fused kernels or step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from onnx_cgmq.mirror.ops.recurrent_cells import Activation, State, Step

Kernel = Callable[..., tuple[Tensor, ...]]


@dataclass(frozen=True)
class Direction:
    """The weights and activation functions of one direction.

    Attributes:
        weight: ``[gates * hidden, input]``.
        recurrence: ``[gates * hidden, hidden]``.
        bias: ``[2 * gates * hidden]``: of the input's product, then of the state's.
        peephole: ``[3 * hidden]``, of an LSTM.
        activations: Its activation functions.
    """

    weight: Tensor
    recurrence: Tensor
    bias: Tensor | None
    peephole: Tensor | None
    activations: tuple[Activation, ...]

    def biases(self) -> tuple[Tensor | None, Tensor | None]:
        """Bias of the input's product and of the state's, ``[gates * hidden]`` each."""
        if self.bias is None:
            return None, None
        first, second = self.bias.chunk(2)
        return first, second


@dataclass(frozen=True)
class Cell:
    """How a recurrent operator is computed.

    Attributes:
        step: Makes the function for one time step of a direction.
        order: Position of each gate of torch's kernel among the operator's gates.
        kernel: Torch's kernel, if it computes what the node asks for, else ``None``.
        apart: Whether the step adds the recurrent bias itself.
    """

    step: Callable[[Direction], Step]
    order: tuple[int, ...]
    kernel: Kernel | None
    apart: bool = False


def reverse(sequence: Tensor, lengths: Sequence[int] | None) -> Tensor:
    """Reverses every sequence within its length; time is the first axis, batch the last but one."""
    if lengths is None:
        return sequence.flip(0)
    length = torch.tensor(lengths, device=sequence.device)
    time = torch.arange(sequence.shape[0], device=sequence.device)[:, None]
    source = torch.where(time < length, length - 1 - time, time)
    source = source.reshape(-1, *(1,) * (sequence.dim() - 3), len(lengths), 1)
    return sequence.gather(0, source.expand_as(sequence))


def fused(
    kernel: Kernel,
    x: Tensor,
    parts: Sequence[Direction],
    states: Sequence[Tensor],
    lengths: Sequence[int] | None,
    cell: Cell,
) -> tuple[Tensor, Sequence[Tensor]]:
    """Outputs and last states by a kernel of torch; sequences have at least one element."""

    def reordered(tensor: Tensor) -> Tensor:
        if len(cell.order) == 1:
            return tensor
        chunks = tensor.chunk(len(cell.order))
        return torch.cat([chunks[index] for index in cell.order])

    weights = [
        reordered(tensor)
        for part in parts
        for tensor in (part.weight, part.recurrence, *part.biases())
        if tensor is not None
    ]
    options: tuple[Any, ...] = (weights, parts[0].bias is not None, 1, 0.0)
    options = (*options, torch.is_grad_enabled(), len(parts) == 2)
    if lengths is None:
        y, *finals = kernel(x, _as_state(states), *options, False)
    else:
        packed = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
        order_by_length, back = packed.sorted_indices, packed.unsorted_indices
        assert order_by_length is not None
        assert back is not None
        ordered = [state.index_select(1, order_by_length) for state in states]
        y, *finals = kernel(packed.data, packed.batch_sizes, _as_state(ordered), *options)
        repacked = PackedSequence(y, packed.batch_sizes, order_by_length, back)
        y, _ = pad_packed_sequence(repacked, total_length=x.shape[0])
        finals = [final.index_select(1, back) for final in finals]
    hidden = parts[0].recurrence.shape[1]
    return y.reshape(*y.shape[:2], len(parts), hidden).transpose(1, 2), finals


def _as_state(states: Sequence[Tensor]) -> Any:
    """Initial states as the kernels take them: LSTM's as a pair."""
    return states[0] if len(states) == 1 else tuple(states)


def unrolled(
    x: Tensor,
    parts: Sequence[Direction],
    states: Sequence[Tensor],
    lengths: Sequence[int] | None,
    cell: Cell,
) -> tuple[Tensor, Sequence[Tensor]]:
    """Outputs and last states, one step after the other."""
    sequences: list[Tensor] = []
    finals: list[State] = []
    for index, part in enumerate(parts):
        first, second = part.biases()
        bias = first if first is None or second is None or cell.apart else first + second
        source = reverse(x, lengths) if index == 1 else x
        gates = functional.linear(source, part.weight, bias)
        state = tuple(s[index] for s in states)
        y, final = _loop(cell.step(part), gates, state, lengths)
        sequences.append(reverse(y, lengths) if index == 1 else y)
        finals.append(final)
    return torch.stack(sequences, dim=1), [torch.stack(s) for s in zip(*finals, strict=True)]


def _loop(
    step: Step, gates: Tensor, state: State, lengths: Sequence[int] | None
) -> tuple[Tensor, State]:
    """Computes all outputs ``[time, batch, hidden]`` and the last state.

    Sequences that have ended keep their state, and their further outputs are zero.
    """
    if lengths is None:
        outputs = []
        for now in gates.unbind():
            state = step(now, state)
            outputs.append(state[0])
        empty = state[0].new_zeros(0, *state[0].shape)
        return torch.stack(outputs) if outputs else empty, state
    length = torch.tensor(lengths, device=gates.device)
    time = torch.arange(gates.shape[0], device=gates.device)
    alive = (time[:, None] < length)[:, :, None]
    # An empty sequence has no last state: zero, as in onnxruntime.
    state = tuple(torch.where(length[:, None] > 0, s, torch.zeros_like(s)) for s in state)
    outputs = []
    for now, active in zip(gates.unbind(), alive.unbind(), strict=True):
        new = step(now, state)
        state = tuple(torch.where(active, n, s) for n, s in zip(new, state, strict=True))
        outputs.append(state[0])
    y = torch.stack(outputs)
    return torch.where(alive, y, torch.zeros_like(y)), state
