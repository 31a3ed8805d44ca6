"""Assigns widths to all gates at once: narrows until the bounds are kept, widens within them.

Both are greedy: the gates with the least (or most) importance per unit of cost go first. The
algorithms are our choice. The bounds are exact nevertheless, because the cost model counts the
cost of every assignment before it is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnx_cgmq.cost.budget import Budget

Widths = dict[str, npt.NDArray[np.int64]]
"""The width of every gate, in an array of the gate's shape, by tensor name."""

Scores = Mapping[str, npt.NDArray[np.float64]]
"""A number for every gate, in an array of the gate's shape, by tensor name."""

Score = Callable[[Widths, Widths], Scores]
"""``score(upper, lower)``: how much the loss is expected to grow if each gate is narrowed from its
upper width to its lower one."""

Masks = Mapping[str, npt.NDArray[np.bool_]]

_PASS_SHARE = 0.1
"""Share of the candidates that may move in one pass, before scores are computed again. Our choice:
passes are few, and no gate moves by scores that are far out of date."""

_FREE = 1e-12  # replaces a cost of zero where a score is divided by it


@dataclass(frozen=True)
class Ladders:
    """The ladders of all gates.

    Attributes:
        widths: The widths that the gates of a tensor may select, ascending, by tensor name.
    """

    widths: Mapping[str, tuple[int, ...]]

    def shifted(self, widths: Widths, offset: int, largest: int | None = None) -> Widths:
        """Moves every width along its ladder.

        Args:
            widths: The width of every gate, by tensor name.
            offset: How many places to move up; negative to move down.
            largest: Widths that would become wider than this stay where they are.

        Returns:
            The moved widths; none moves beyond an end of its ladder.
        """
        moved: Widths = {}
        for name, current in widths.items():
            ladder = np.array(self.widths[name])
            index = np.searchsorted(ladder, current) + offset
            target = ladder[np.clip(index, 0, len(ladder) - 1)]
            if largest is not None:
                target = np.where(target > largest, current, target)
            moved[name] = np.asarray(target).reshape(current.shape)
        return moved


@dataclass
class _Candidates:
    """The gates that may move, in the order in which they do.

    Attributes:
        names: Names of tensors.
        owner: For each gate the index of its tensor in ``names``, int64 ``[gates]``.
        position: The flat index of each gate within its tensor's gates, int64 ``[gates]``.
    """

    names: list[str]
    owner: npt.NDArray[np.int64]
    position: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.owner)

    def apply(self, widths: Widths, target: Widths, count: int) -> Widths:
        """Moves the first candidates.

        Args:
            widths: The width of every gate, by tensor name; they are not changed.
            target: The widths to which candidates move.
            count: How many candidates move.

        Returns:
            The width of every gate afterwards.
        """
        # np.array keeps arrays without axes, where copy() would make scalars that have no views.
        moved = {name: np.array(array) for name, array in widths.items()}
        for index, name in enumerate(self.names):
            here = self.position[:count][self.owner[:count] == index]
            moved[name].reshape(-1)[here] = target[name].reshape(-1)[here]
        return moved


def _candidates(
    costs: Scores, scores: Scores, masks: Masks, widths: Widths, *, best_first: bool
) -> _Candidates:
    """Orders the gates in the masks by score per cost; only tensors in ``costs`` take part.

    Of equal ones (all are, if nothing is known about the loss) those that have moved least go
    first, so that no tensor is narrowed to the end while others stay wide.
    """
    names = list(costs)
    owners = [np.zeros(0, dtype=np.int64)]
    positions, ratios = [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
    bits = [np.zeros(0, dtype=np.int64)]
    for index, name in enumerate(names):
        position = np.flatnonzero(masks[name])
        cost = np.asarray(costs[name], dtype=np.float64).reshape(-1)[position]
        owners.append(np.full(len(position), index))
        positions.append(position)
        bits.append(widths[name].reshape(-1)[position])
        ratios.append(scores[name].reshape(-1)[position] / np.maximum(cost, _FREE))
    ratio, width = np.concatenate(ratios), np.concatenate(bits)
    order = np.lexsort((width, -ratio) if best_first else (-width, ratio))
    return _Candidates(names, np.concatenate(owners)[order], np.concatenate(positions)[order])


def narrow_until(budget: Budget, ladders: Ladders, widths: Widths, score: Score) -> Widths:
    """Narrows the least important gates until all bounds are kept.

    Args:
        budget: The bounds, none of which may be below ``budget.minimum()``.
        ladders: The widths that gates may select.
        widths: The width of every gate, by tensor name.
        score: How much narrowing is expected to increase the loss.

    Returns:
        Widths that keep all bounds; no gate is wider than before.

    Raises:
        AssertionError: A bound is below the minimum. Callers have to check this before.
    """
    while not budget.keeps(costs := budget.costs(widths)):
        target = ladders.shifted(widths, -1)
        saved = budget.saving(budget.prices(costs), widths, widths, target)
        masks = {name: (widths[name] != target[name]) & (saved[name] > 0) for name in saved}
        candidates = _candidates(saved, score(widths, target), masks, widths, best_first=False)
        assert len(candidates) > 0, "the bound is below the minimum; check_feasible comes first"
        chunk = max(1, int(len(candidates) * _PASS_SHARE))
        low, high = 1, chunk
        if not budget.holds(candidates.apply(widths, target, chunk)):
            low = chunk
        while low < high:
            middle = (low + high) // 2
            if budget.holds(candidates.apply(widths, target, middle)):
                high = middle
            else:
                low = middle + 1
        widths = candidates.apply(widths, target, low)
    return widths


def widen_within(
    budget: Budget, ladders: Ladders, widths: Widths, score: Score, largest: int
) -> Widths:
    """Gives what is left of all bounds to the gates that gain most per unit of cost.

    Args:
        budget: The bounds.
        ladders: The widths that gates may select.
        widths: The width of every gate, by tensor name; they must keep the bounds.
        score: How much narrowing a gate back is expected to increase the loss.
        largest: No gate is widened beyond this width.

    Returns:
        Widths that keep all bounds; no gate is narrower than before.
    """
    while True:
        target = ladders.shifted(widths, +1, largest)
        grown, fits = budget.growth(budget.costs(widths), widths, target)
        masks = {name: (widths[name] != target[name]) & fits[name] for name in grown}
        candidates = _candidates(grown, score(target, widths), masks, widths, best_first=True)
        if len(candidates) == 0:
            return widths
        low, high = 0, max(1, int(len(candidates) * _PASS_SHARE))
        while low < high:
            middle = (low + high + 1) // 2
            if budget.holds(candidates.apply(widths, target, middle)):
                low = middle
            else:
                high = middle - 1
        if low == 0:
            return widths
        widths = candidates.apply(widths, target, low)
