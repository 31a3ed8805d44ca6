"""All gates as one vector of candidates: narrow until the bound holds, widen what is left.

Both walks are greedy by importance per saved cost, and both are exact about the bound: every
candidate assignment is costed with the one cost model before it is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnx_cgmq.cost.budget import Budget

Widths = dict[str, npt.NDArray[np.int64]]
Scores = Mapping[str, npt.NDArray[np.float64]]
Score = Callable[[Widths, Widths], Scores]
"""``score(upper, lower)``: loss expected from narrowing every gate from upper to lower widths."""

Masks = Mapping[str, npt.NDArray[np.bool_]]

_PASS_SHARE = 0.1  # of the candidates move in one pass; the scores are then taken anew
_FREE = 1e-12  # cost in a ratio of what costs nothing


@dataclass(frozen=True)
class Ladders:
    """The widths that every tensor's gates may take, ascending, by tensor name."""

    widths: Mapping[str, tuple[int, ...]]

    def shifted(self, widths: Widths, offset: int, largest: int | None = None) -> Widths:
        """Every width moved along its ladder by ``offset``; it stays at an end or ``largest``."""
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
    """Flat view of the gates that would move, best first."""

    names: list[str]
    owner: npt.NDArray[np.int64]
    position: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.owner)

    def apply(self, widths: Widths, target: Widths, count: int) -> Widths:
        """The widths with the first ``count`` candidates moved to their target."""
        # np.array, not copy(): NumPy turns results without axes into scalars, which have no views.
        moved = {name: np.array(array) for name, array in widths.items()}
        for index, name in enumerate(self.names):
            here = self.position[:count][self.owner[:count] == index]
            moved[name].reshape(-1)[here] = target[name].reshape(-1)[here]
        return moved


def _candidates(costs: Scores, scores: Scores, masks: Masks, *, best_first: bool) -> _Candidates:
    """Gates in a mask, ordered by score per cost; only of tensors that have a cost."""
    names = list(costs)
    owners = [np.zeros(0, dtype=np.int64)]
    positions, ratios = [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
    for index, name in enumerate(names):
        position = np.flatnonzero(masks[name])
        cost = np.asarray(costs[name], dtype=np.float64).reshape(-1)[position]
        owners.append(np.full(len(position), index))
        positions.append(position)
        ratios.append(scores[name].reshape(-1)[position] / np.maximum(cost, _FREE))
    ratio = np.concatenate(ratios)
    order = np.argsort(-ratio if best_first else ratio, kind="stable")
    return _Candidates(names, np.concatenate(owners)[order], np.concatenate(positions)[order])


def narrow_until(budget: Budget, ladders: Ladders, widths: Widths, score: Score) -> Widths:
    """Narrows the least important gates until all bounds are kept.

    Args:
        budget: The bounds, at or above ``budget.minimum()``.
        ladders: Widths allowed.
        widths: Bits of every gate, by tensor name.
        score: Loss expected from narrowing.

    Returns:
        Widths that keep all bounds, none above those given.

    Raises:
        AssertionError: A limit is below the minimum (checked by the caller beforehand).
    """
    while not budget.keeps(costs := budget.costs(widths)):
        target = ladders.shifted(widths, -1)
        saved = budget.saving(budget.prices(costs), widths, widths, target)
        masks = {name: (widths[name] != target[name]) & (saved[name] > 0) for name in saved}
        candidates = _candidates(saved, score(widths, target), masks, best_first=False)
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
    """Spends what is left of all bounds on the gates that gain most per cost.

    Args:
        budget: The bounds.
        ladders: Widths allowed.
        widths: Bits of every gate, which keep the bounds.
        score: Loss expected from narrowing back.
        largest: Widest width to hand out.

    Returns:
        Widths that keep all bounds, none below those given.
    """
    while True:
        target = ladders.shifted(widths, +1, largest)
        grown, fits = budget.growth(budget.costs(widths), widths, target)
        masks = {name: (widths[name] != target[name]) & fits[name] for name in grown}
        candidates = _candidates(grown, score(target, widths), masks, best_first=True)
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
