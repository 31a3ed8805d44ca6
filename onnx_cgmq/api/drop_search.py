"""Finds the smallest cost at which a model loses no more than it may."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from onnx_cgmq.api.curve_bounds import bound_at, cost_at_8_bits
from onnx_cgmq.api.drop import Drop, MaxDrop
from onnx_cgmq.api.emitter import Progress
from onnx_cgmq.api.opened_model import OpenedModel
from onnx_cgmq.api.points import (
    STOPS,
    TIME_LIMIT,
    PointMaker,
    cost_of,
    open_points,
    reason_of,
    shortened,
)
from onnx_cgmq.api.result import Result
from onnx_cgmq.contract.events import Event, Notice, PointDone
from onnx_cgmq.contract.stopped import Stopped
from onnx_cgmq.cost.bound import Bound, Bounds, CostKind

if TYPE_CHECKING:  # torch loads when a run starts, not on import
    from onnx_cgmq.learn.schedule import Schedule

_TRIALS: Final = 6
"""Points that are tried, the first at the highest cost. Our choice: from 8 bits down to 2 they find
the cost to a tenth."""

_CLOSE: Final = 1.05
"""Costs that differ by less than this factor are not worth a further trial. Our choice."""


def search(
    opened: OpenedModel,
    most: MaxDrop,
    bound: Bounds | None,
    emit: Progress,
    events: Sequence[Event],
    began: float,
) -> Result:
    """Finds the smallest cost at which a model loses no more than it may, and learns there.

    Args:
        opened: The model and the samples.
        most: The most that may be lost.
        bound: Bounds that are kept in any case, if there are any.
        emit: Is called with the events.
        events: The events so far, and those to come.
        began: When the call of the user began, by the monotonic clock.

    Returns:
        The result, whose ``drop`` says whether what was asked is kept.

    Raises:
        BoundError: A bound can't be kept.
        DataError: It can't be told what a model loses.
    """
    if bound is not None:
        opened.costs.budget(bound).check_feasible()
    given = () if bound is None else opened.costs.budget(bound).bounds
    if note := most.coarse_note(len(opened.held_out)):
        emit(Notice(note))
    result = DropSearch(open_points(opened, emit, began), most, given).run()
    return replace(result, events=tuple(events))


@dataclass(frozen=True)
class _Kept:
    """A trial that lost no more than it may.

    Attributes:
        limit: Its cost, which is the limit of a further run.
        result: Its result.
        state: The state of the mirror, which later trials change.
    """

    limit: float
    result: Result
    state: dict[str, Any]


class DropSearch:
    """Looks for the smallest cost at which a model loses no more than it may.

    Points are tried with a part of the training steps: the dearest first, then the one in the
    middle, by the logarithm of the cost, of what is enough and what is not. The last run, at the
    smallest cost that was enough, has all training steps. Every model keeps the given bounds.
    """

    def __init__(self, maker: PointMaker, most: MaxDrop, given: Sequence[Bound]) -> None:
        """Prepares a search.

        Args:
            maker: Learns under bounds.
            most: The most that may be lost.
            given: Bounds that are kept in any case; the cost of the first is made small.
        """
        self._maker, self._most, self._given = maker, most, given
        costs = maker.opened.costs
        self._kind = given[0].kind if given else CostKind.BOPS
        budget = costs.budget(given or "100%")
        smallest = float(budget.minimum()[0][0])
        limits = [float(bound.limit) for bound in given if bound.kind is self._kind]
        highest = min([float(cost_at_8_bits(costs, budget)), *limits])
        self._ends = smallest, max(smallest, highest)
        self._best: _Kept | None = None
        self._last: Result | None = None

    def run(self) -> Result:
        """Searches, and returns the result of the smallest cost.

        Its ``drop`` says whether what was asked is kept. If it can't be, the result is that of the
        highest cost. If the search is stopped, it is that of the cheapest trial that was enough.

        Raises:
            DataError: It can't be told what a model loses.
        """
        full = self._maker.run.schedule
        try:
            self._search(shortened(full, _TRIALS))
            limit = self._ends[1] if self._best is None else self._best.limit
            last, drop = self._learned(limit, full)
        except (KeyboardInterrupt, Stopped) as stop:
            found = self._last if self._best is None else self._restored(self._best)
            if found is None:
                raise
            return self._ended(found, reason_of(stop))
        if self._best is None or drop.kept:
            return last
        if last.outcome.reason in STOPS:
            return self._ended(self._restored(self._best), last.outcome.reason)
        self._maker.emit(
            Notice(
                f"with all training steps the model did not keep the drop ({drop.text}), but the "
                "trial at the same cost did: its model is taken"
            )
        )
        return self._restored(self._best)

    def _search(self, schedule: Schedule) -> None:
        """Finds the cheapest trial that is enough.

        Raises:
            Stopped: Learning was stopped, or the time is over.
        """
        below, limit = self._ends
        for _ in range(_TRIALS):
            result, drop = self._learned(limit, schedule)
            if drop.kept:
                cost = float(cost_of(result.check, self._kind))
                self._best = _Kept(cost, result, self._maker.state())
            if result.outcome.reason in STOPS:
                raise Stopped(result.outcome.reason)
            if self._maker.is_late:
                raise Stopped(TIME_LIMIT)
            if self._best is None:
                return  # not even the highest cost is enough, with so few steps
            if not drop.kept:
                below = limit
            if self._best.limit < _CLOSE * below:
                return
            limit = math.sqrt(below * self._best.limit)

    def _learned(self, limit: float, schedule: Schedule) -> tuple[Result, Drop]:
        """Learns under a limit on the cost and the given bounds, and judges the model."""
        bound = bound_at(self._maker.opened.costs, self._kind, math.ceil(limit))
        tighter = all(
            bound.limit < other.limit for other in self._given if other.kind is bound.kind
        )
        began = time.monotonic()
        result = self._maker.result([*([bound] if tighter else []), *self._given], schedule)
        drop = self._most.judged(result.float_agreement)
        share = result.cost.rbop if self._kind is CostKind.BOPS else None
        seconds = time.monotonic() - began
        self._maker.emit(PointDone(bound.text, share, drop.text, seconds))
        self._last = replace(result, drop=drop)
        return self._last, drop

    @staticmethod
    def _ended(result: Result, reason: str) -> Result:
        """A result that is not complete, because the search was stopped."""
        return replace(result, outcome=replace(result.outcome, complete=False, reason=reason))

    def _restored(self, kept: _Kept) -> Result:
        """The result of a trial, with its mirror as it was."""
        self._maker.run.mirror.load_state_dict(kept.state)
        return kept.result
