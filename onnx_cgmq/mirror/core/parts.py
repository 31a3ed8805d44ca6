"""Parts of a program that can be run alone: from a few values that go in to a few that come out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from onnx_cgmq.mirror.core.program import Program, Step, run_steps

_MOST_WEIGHTS: Final = 8
"""A part with this many weights ends where fewest values come out, even if these are several. Our
choice: a block of most networks has fewer."""


@dataclass(frozen=True)
class Part:
    """A range of steps of a program.

    Attributes:
        steps: The steps in order: those that depend on inputs of the program, after those that
            they need and that depend on constants alone.
        entries: Slots of the values that go in.
        exits: Slots of the values that come out.
    """

    steps: tuple[Step, ...]
    entries: tuple[int, ...]
    exits: tuple[int, ...]


def split(program: Program, is_weight: Sequence[bool]) -> tuple[Part, ...]:
    """Splits a program into parts that follow each other, each with at least one weight.

    A part ends where a single value goes on (behind a residual block, for example); or, if there
    are many weights since the last end, where fewest values do. It takes in what follows up to the
    next weight, as long as no more values go on: what an activation function cuts off need not be
    right. Only values count that weights have changed and that a later step reads: an attention
    mask is carried along, and so is an output of the program that is finished.

    Args:
        program: The program.
        is_weight: For each step, whether it quantizes a weight.

    Returns:
        The parts; the first starts from the inputs of the program, the last ends with its outputs.
    """
    steps = program.steps
    moving = _moving_steps(program)
    last_read = {slot: index for index in moving for slot in steps[index].inputs}
    last_use = {**last_read, **dict.fromkeys(program.outputs.values(), len(steps))}
    makers = _makers_of_constants(steps, moving)
    needed = _static_needs(steps, makers)
    needs = {index: needed(steps[index].inputs) for index in moving}
    # A bias that reads a weight's step, the second output of its quantizer, is not a weight.
    scales = {
        slot
        for step, is_one in zip(steps, is_weight, strict=True)
        if is_one
        for slot in step.outputs[1:]
    }
    values_of = _static_needs(steps, {s: i for s, i in makers.items() if s not in scales})
    weights_of = {
        index: {i for i in values_of(steps[index].inputs) if is_weight[i]} for index in moving
    }

    alive = {slot for slot in program.inputs.values() if slot in last_use}
    entries, start = tuple(sorted(alive)), 0
    weights: set[int] = set()  # of this part: the steps that quantize them
    changed: set[int] = set()  # slots of values that depend on weights
    best: tuple[int, int] | None = None  # of this part: fewest values that go on, and where last
    single: int | None = None  # of this part: where first a single value goes on
    lives: list[tuple[int, ...]] = []
    ends: list[int] = []
    for position, index in enumerate(moving):
        step = steps[index]
        is_full = len(weights) >= _MOST_WEIGHTS
        if weights_of[index] and best is not None and (best[0] <= 1 or is_full):
            ends.append(best[1])
            after = moving[best[1] + 1 : position]
            weights = {weight for i in after for weight in weights_of[i]}
            best = single = None
        alive.update(slot for slot in step.outputs if last_use.get(slot, -1) > index)
        alive -= {slot for slot in step.inputs if last_use[slot] <= index}
        lives.append(tuple(sorted(alive)))
        weights |= weights_of[index]
        if weights_of[index] or not changed.isdisjoint(step.inputs):
            changed.update(step.outputs)
        if not weights or position + 1 == len(moving):
            continue
        going_on = sum(slot in changed and last_read.get(slot, -1) > index for slot in alive)
        if best is None or going_on <= best[0]:
            best = going_on, position
        if single is None and going_on <= 1:
            single = position
    if single is not None:  # behind the last weight: logits, not what Softmax makes of them
        ends.append(single)

    parts = []
    for end in ends:
        chosen = moving[start : end + 1]
        static = sorted({need for index in chosen for need in needs[index]})
        exits = lives[end]
        parts.append(Part(tuple(steps[i] for i in (*static, *chosen)), entries, exits))
        entries, start = exits, end + 1
    # The last part gives all outputs, even those that depend on constants alone.
    chosen, exits = moving[start:], tuple(sorted(set(program.outputs.values())))
    static = sorted({*needed(exits), *(need for index in chosen for need in needs[index])})
    parts.append(Part(tuple(steps[i] for i in (*static, *chosen)), entries, exits))
    return tuple(parts)


def _moving_steps(program: Program) -> list[int]:
    """Returns the indexes of the steps that depend on inputs of the program."""
    moving, found = set(program.inputs.values()), []
    for index, step in enumerate(program.steps):
        if not moving.isdisjoint(step.inputs):
            moving.update(step.outputs)
            found.append(index)
    return found


def _makers_of_constants(steps: Sequence[Step], moving: Iterable[int]) -> dict[int, int]:
    """Returns, by slot, the index of the step on constants alone that makes its value."""
    is_moving = set(moving)
    return {
        slot: index
        for index, step in enumerate(steps)
        if index not in is_moving
        for slot in step.outputs
    }


def _static_needs(
    steps: Sequence[Step], makers: Mapping[int, int]
) -> Callable[[Iterable[int]], set[int]]:
    """Returns a function that gives the steps on constants alone that the given slots need."""
    closure: dict[int, set[int]] = {}

    def needed(slots: Iterable[int]) -> set[int]:
        found: set[int] = set()
        for slot in slots:
            if slot in makers:
                index = makers[slot]
                if index not in closure:
                    closure[index] = {index} | needed(steps[index].inputs)
                found |= closure[index]
        return found

    return needed


def run_part(part: Part, slots: list[Any]) -> dict[int, Any]:
    """Runs a part.

    Args:
        part: The part.
        slots: The content of the slots, with constants and the values that go in.

    Returns:
        The values that come out, by slot.
    """
    run_steps(part.steps, slots, kept=range(len(slots)))
    return {slot: slots[slot] for slot in part.exits}
