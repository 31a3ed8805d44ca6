"""Parts of a program that can be run alone: from a few values that go in to a few that come out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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

    A part ends where a single value comes out (behind a residual block, for example); or, if there
    are many weights since the last end, where fewest values do.

    Args:
        program: The program.
        is_weight: For each step, whether it quantizes a weight.

    Returns:
        The parts; the first starts from the inputs of the program, the last ends with its outputs.
    """
    steps = program.steps
    moving = _moving_steps(program)
    last_use = {slot: index for index in moving for slot in steps[index].inputs}
    last_use.update(dict.fromkeys(program.outputs.values(), len(steps)))
    needs = _static_needs(steps, moving)

    alive = {slot for slot in program.inputs.values() if slot in last_use}
    entries, start, weights = tuple(sorted(alive)), 0, 0
    best: tuple[int, int] | None = None  # of this part: fewest values alive, and where
    lives: list[tuple[int, ...]] = []
    ends: list[int] = []
    for position, index in enumerate(moving):
        step = steps[index]
        alive.update(slot for slot in step.outputs if last_use.get(slot, -1) > index)
        alive -= {slot for slot in step.inputs if last_use[slot] <= index}
        lives.append(tuple(sorted(alive)))
        weights += sum(is_weight[need] for need in needs[index])
        if not weights or position + 1 == len(moving):
            continue
        if best is None or len(alive) < best[0]:
            best = len(alive), position
        if len(alive) == 1 or weights >= _MOST_WEIGHTS:
            ends.append(best[1])
            weights = sum(
                is_weight[need] for i in moving[best[1] + 1 : position + 1] for need in needs[i]
            )
            best = None
    ends.append(len(moving) - 1)

    parts = []
    for end in ends:
        chosen = moving[start : end + 1]
        static = sorted({need for index in chosen for need in needs[index]})
        exits = lives[end] if lives else entries
        parts.append(Part(tuple(steps[i] for i in (*static, *chosen)), entries, exits))
        entries, start = exits, end + 1
    return tuple(parts)


def _moving_steps(program: Program) -> list[int]:
    """Returns the indexes of the steps that depend on inputs of the program."""
    moving, found = set(program.inputs.values()), []
    for index, step in enumerate(program.steps):
        if not moving.isdisjoint(step.inputs):
            moving.update(step.outputs)
            found.append(index)
    return found


def _static_needs(steps: Sequence[Step], moving: Iterable[int]) -> dict[int, list[int]]:
    """Returns, for each moving step, the steps on constants alone that it needs, in order."""
    is_moving = set(moving)
    maker = {
        slot: index
        for index, step in enumerate(steps)
        if index not in is_moving
        for slot in step.outputs
    }
    closure: dict[int, set[int]] = {}

    def needed(index: int) -> set[int]:
        if index not in closure:
            found: set[int] = set()
            for slot in steps[index].inputs:
                if slot in maker:
                    found |= {maker[slot]} | needed(maker[slot])
            closure[index] = found
        return closure[index]

    return {index: sorted(needed(index)) for index in is_moving}


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
