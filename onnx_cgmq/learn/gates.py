"""All gates as one vector of candidates: narrow until the bound holds, widen what is left.

Both walks are greedy by importance per saved cost, and both are exact about the bound: every
candidate assignment is costed with the one cost model before it is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnx_cgmq.cost.bound import CostModel

Widths = dict[str, npt.NDArray[np.int64]]
Scores = Mapping[str, npt.NDArray[np.float64]]
Score = Callable[[Widths, Widths], Scores]
"""``score(upper, lower)``: loss expected from narrowing every gate from upper to lower widths."""

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
    cost: npt.NDArray[np.float64]

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

    def keep(self, mask: npt.NDArray[np.bool_]) -> _Candidates:
        return _Candidates(self.names, self.owner[mask], self.position[mask], self.cost[mask])


def _candidates(
    widths: Widths, target: Widths, costs: Scores, scores: Scores, *, best_first: bool
) -> _Candidates:
    """Gates whose target differs, ordered by score per cost; only of tensors that have a cost."""
    names = list(costs)
    owners, positions, ratios, moved = [], [], [], []
    for index, name in enumerate(names):
        position = np.flatnonzero(widths[name] != target[name])
        cost = np.asarray(costs[name], dtype=np.float64).reshape(-1)[position]
        owners.append(np.full(len(position), index))
        positions.append(position)
        moved.append(cost)
        ratios.append(scores[name].reshape(-1)[position] / np.maximum(cost, _FREE))
    ratio = np.concatenate(ratios)
    order = np.argsort(-ratio if best_first else ratio, kind="stable")
    return _Candidates(
        names,
        np.concatenate(owners)[order],
        np.concatenate(positions)[order],
        np.concatenate(moved)[order],
    )


def narrow_until(
    model: CostModel, ladders: Ladders, widths: Widths, limit: int, score: Score
) -> Widths:
    """Narrows the least important gates until the cost is within a limit.

    Args:
        model: The cost.
        ladders: Widths allowed.
        widths: Bits of every gate, by tensor name.
        limit: Largest cost allowed; at least ``model.minimum()``.
        score: Loss expected from narrowing.

    Returns:
        Widths whose cost is at most ``limit``, none above those given.

    Raises:
        AssertionError: The limit is below the minimum (checked by the caller beforehand).
    """
    while model.cost(widths) > limit:
        target = ladders.shifted(widths, -1)
        saved = {
            name: slope * (widths[name] - target[name])
            for name, slope in model.marginal(widths).items()
        }
        candidates = _candidates(widths, target, saved, score(widths, target), best_first=False)
        candidates = candidates.keep(candidates.cost > 0)
        assert len(candidates) > 0, "the bound is below the minimum; check_feasible comes first"
        chunk = max(1, int(len(candidates) * _PASS_SHARE))
        low, high = 1, chunk
        if model.cost(candidates.apply(widths, target, chunk)) > limit:
            low = chunk
        while low < high:
            middle = (low + high) // 2
            if model.cost(candidates.apply(widths, target, middle)) <= limit:
                high = middle
            else:
                low = middle + 1
        widths = candidates.apply(widths, target, low)
    return widths


def widen_within(
    model: CostModel, ladders: Ladders, widths: Widths, limit: int, score: Score, largest: int
) -> Widths:
    """Spends what is left of a limit on the gates that gain most per cost.

    Args:
        model: The cost.
        ladders: Widths allowed.
        widths: Bits of every gate, within the limit.
        limit: Largest cost allowed.
        score: Loss expected from narrowing back.
        largest: Widest width to hand out.

    Returns:
        Widths whose cost is at most ``limit``, none below those given.
    """
    while True:
        target = ladders.shifted(widths, +1, largest)
        spare = limit - model.cost(widths)
        costs = model.widening(widths, target)
        candidates = _candidates(widths, target, costs, score(target, widths), best_first=True)
        candidates = candidates.keep(candidates.cost <= spare)
        if len(candidates) == 0:
            return widths
        low, high = 0, max(1, int(len(candidates) * _PASS_SHARE))
        while low < high:
            middle = (low + high + 1) // 2
            if model.cost(candidates.apply(widths, target, middle)) <= limit:
                low = middle
            else:
                high = middle - 1
        if low == 0:
            return widths
        widths = candidates.apply(widths, target, low)
