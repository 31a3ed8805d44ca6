"""Makes points of a curve on one opened run, one bound after the other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from onnx_cgmq.api.curve_points import LEARNED, CurvePoint
from onnx_cgmq.api.emitter import Progress, emitter
from onnx_cgmq.api.finish import finish
from onnx_cgmq.api.opened_model import OpenedModel
from onnx_cgmq.api.quality import Quality
from onnx_cgmq.api.result import Result
from onnx_cgmq.api.verification import Check
from onnx_cgmq.contract.events import Event, PointDone
from onnx_cgmq.contract.stopped import Stopped
from onnx_cgmq.cost.bops import Widths
from onnx_cgmq.cost.bound import Amount, Bound, CostKind
from onnx_cgmq.errors import ModelError

if TYPE_CHECKING:  # torch loads when a run starts, not on import
    from onnx_cgmq.learn.opened_run import OpenedRun
    from onnx_cgmq.learn.schedule import Schedule

_RUNS: Final = 1.5
"""All points of a curve together learn for as many training steps as so many runs. Our choice: each
point takes further time that no share of the steps makes less, and six of them should take less
than 2.5 times as long as a run."""


COMPLETE: Final = "complete"
TIME_LIMIT: Final = "time limit"
_INTERRUPTED: Final = "interrupted"

STOPS: Final = frozenset({_INTERRUPTED, TIME_LIMIT, "terminated", "hung up"})
"""The ends of learning after which nothing further is learned."""


def reason_of(stop: KeyboardInterrupt | Stopped) -> str:
    """Why a run ends at the wish of the user."""
    return stop.reason if isinstance(stop, Stopped) else _INTERRUPTED


def shortened(schedule: Schedule, points: int) -> Schedule:
    """What is done for each of several points: all together have the steps of a run and a half."""
    share = min(1.0, _RUNS / points)
    stages = schedule.stages
    if stages is not None and stages.reconstruction_steps:
        steps = max(1, round(share * stages.reconstruction_steps))
        stages = replace(stages, reconstruction_steps=steps)
    epochs = max(1, round(share * schedule.epochs)) if schedule.epochs else 0
    return replace(schedule, stages=stages, epochs=epochs)


def open_points(opened: OpenedModel, emit: Progress, began: float) -> PointMaker:
    """Opens the run of several points.

    Args:
        opened: The model and the samples. A time limit is that of all points.
        emit: Is called with the events.
        began: When the call of the user began, by the monotonic clock.
    """
    from onnx_cgmq.learn.opened_run import Data, OpenedRun  # loads torch
    from onnx_cgmq.mirror.torch_state import plain_torch

    limit, config = opened.config.time_limit, opened.config
    if limit is not None:  # all points together learn for this many runs
        config = config.model_copy(update={"time_limit": limit / _RUNS})
    with plain_torch(config.seed):
        samples = Data(opened.train, opened.held_out)
        run = OpenedRun.open(opened.float_model, opened.gated, samples, config, emit)
    return PointMaker(opened, run, emit, None if limit is None else began + limit)


@dataclass
class PointMaker:
    """Learns, writes and judges models under one bound after the other, on one opened run.

    Attributes:
        opened: The model and the samples.
        run: The opened run. It is calibrated once; every bound starts from that state.
        emit: Is called with the events.
        ends: When learning must end, by the monotonic clock; ``None`` for no limit.
        measure: What says how good a point is; ``None`` chooses it by the first point.
    """

    opened: OpenedModel
    run: OpenedRun
    emit: Progress
    ends: float | None = None
    measure: Quality | None = None
    _start: dict[str, Any] | None = None

    @property
    def is_late(self) -> bool:
        """Whether the time is over."""
        return self.ends is not None and time.monotonic() >= self.ends

    def result(self, bounds: Sequence[Bound], schedule: Schedule) -> Result:
        """Learns under bounds from the calibrated state, and writes and checks the model."""
        from onnx_cgmq.learn.run import learn  # loads torch
        from onnx_cgmq.mirror.torch_state import plain_torch

        events: list[Event] = []
        emit = emitter(self.emit, None, events)
        limit = None if self.ends is None else max(1e-3, self.ends - time.monotonic())
        with plain_torch(self.opened.config.seed):
            self._start_anew()
            learned = learn(self.run, bounds, emit, schedule=schedule, time_limit=limit)
            return finish(self.opened, learned, events, emit)

    def point(self, bound: Bound, schedule: Schedule) -> tuple[CurvePoint, str]:
        """Makes the point of a bound.

        Returns:
            The point, and how learning ended: ``complete`` or a reason.

        Raises:
            ModelError: It can't be told how good the models are.
        """
        began = time.monotonic()
        result = self.result([bound], schedule)
        return self._point(LEARNED, bound, result, began), result.outcome.reason

    def uniform(self, method: str, widths: Widths, bound: Bound, schedule: Schedule) -> CurvePoint:
        """Makes a point to compare with, of given widths and the bound that they keep."""
        from onnx_cgmq.learn.uniform import learn_with_widths  # loads torch
        from onnx_cgmq.mirror.torch_state import plain_torch

        began = time.monotonic()
        with plain_torch(self.opened.config.seed):
            self._start_anew()
            learned = learn_with_widths(self.run, widths, bound, self.emit, schedule)
            return self._point(method, bound, finish(self.opened, learned, [], self.emit), began)

    def state(self) -> dict[str, Any]:
        """A copy of the present state of the mirror."""
        from onnx_cgmq.learn.snapshot import snapshot  # loads torch

        return snapshot(self.run.mirror)

    def _start_anew(self) -> None:
        """Puts the mirror into the calibrated state."""
        if self._start is None:
            _ = self.run.judgement  # calibrates
            self._start = self.state()
        self.run.mirror.load_state_dict(self._start)

    def _point(self, method: str, bound: Bound, result: Result, began: float) -> CurvePoint:
        quality, agreement = self.judged(result), result.float_agreement
        assert agreement is not None  # it was judged by that
        share = float(cost_of(result.check, bound.kind)) / float(self._float_cost(bound.kind))
        seconds = time.monotonic() - began
        name = bound.text if method == LEARNED else method
        self.emit(PointDone(name, share, agreement.text, seconds))
        return CurvePoint(
            method,
            bound.text,
            share,
            quality,
            agreement,
            result.check,
            result.model,
            result.plan,
            seconds,
        )

    def judged(self, result: Result) -> float:
        """How good a model is, by the measure.

        Raises:
            ModelError: It can't be told.
        """
        agreement = result.float_agreement
        if agreement is not None and self.measure is None:
            self.measure = Quality.best_known(agreement)
        quality = None
        if agreement is not None and self.measure is not None:
            quality = self.measure.of(agreement)
        if quality is None:
            wanted = "quality" if self.measure is None else self.measure.value
            raise ModelError(
                f"the {wanted} of a written model can't be told: onnxruntime does not run the "
                "float model, chance decides the outputs, or there are no such outputs or labels; "
                "quantize under a bound instead"
            )
        return quality

    def _float_cost(self, kind: CostKind) -> Amount:
        cost = self.opened.costs.cost(kind)
        assert cost is not None  # there is a bound on it
        return cost.float_cost


def cost_of(check: Check, kind: CostKind) -> float:
    """The cost of a kind that was counted from a written model."""
    cost = {
        CostKind.BOPS: check.bops,
        CostKind.SIZE: check.weight_bytes,
        CostKind.ACTIVATIONS: check.peak_activation_bytes,
        CostKind.TABLE: check.table_cost,
    }[kind]
    assert cost is not None  # it was bounded, so it was counted
    return cost
