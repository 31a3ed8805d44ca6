"""The guide: moves gates along the direction that the constraint sets (CGMQ, arXiv 2409.20138)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onnx_cgmq.contract.bits import INTEGER_KERNEL_BITS, Granularity, Role
from onnx_cgmq.contract.plan import BitPlan
from onnx_cgmq.cost.bound import Bound, Bounds, CostKind
from onnx_cgmq.cost.budget import Amounts
from onnx_cgmq.cost.model import CostModel
from onnx_cgmq.learn.assignment import Ladders, Scores, Widths, narrow_until, widen_within
from onnx_cgmq.learn.directions import (
    gate_direction,
    importance,
    standardise,
    wanted_statistics,
)
from onnx_cgmq.learn.statistics import RunningStatistics
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.mirror.quantizers.quantizer import GatedQuantizer
from onnx_cgmq.mirror.quantizers.tensor_plans import narrow_to_codes
from onnx_cgmq.settings import DEFAULT_TARGET, TargetLike, load_target
from onnx_cgmq.settings.config import Direction

_LADDER_LENGTH = 5.0
"""Distance of the gates of the widest and the narrowest width: one for each width from 2 to 32 bits
(CGMQ, arXiv 2409.20138: gates start at 5.5, and 0.5 is 2 bits)."""

_REACH_SHARE = 0.4
"""A gate of average importance goes down the whole ladder in this share of the steps. Our choice:
half the steps and more are left to rise again where it helps."""

_DEADLINE_SHARE = 0.25
"""Gates move twice as fast once the bound has been broken in moves worth this share of the steps,
three times as fast after twice as many, and so on. Our choice: the bound is met on every model."""

_LONGEST_INTERVAL = 5
"""Most steps between two moves: importance changes slowly, and a move costs as much as a step."""

_FEWEST_MOVES = 50
"""Moves that even a short run should have: each is small enough then to stop near the bound."""

_FREE = 1e-12
"""Savings below this are taken for it: what costs nothing is not divided by zero."""


class Guide:
    """Steers a mirror's gates so that its cost keeps one bound or several.

    Call :meth:`step` after every ``loss.backward()``. While a bound is violated every width that
    counts for it falls, the least important first; while all are kept, widths rise where it helps
    most. :meth:`settle` fixes the widths within the bounds; :meth:`enforce` makes any state
    feasible.

    Attributes:
        mirror: The guided mirror.
        cost_model: What an assignment of widths costs.
        budget: The bounds, parsed, with the costs that they limit.
    """

    def __init__(
        self,
        mirror: Mirror,
        bound: Bounds,
        *,
        target: TargetLike = DEFAULT_TARGET,
        direction: Direction | str = Direction.FISHER,
        steps: int = 1000,
        interval: int | None = None,
    ) -> None:
        """Prepares to guide.

        Args:
            mirror: A mirror of a gated graph.
            bound: ``"0.4%"`` (share of the float model's bit operations), ``"12.5MBOP"``, a size,
                ``"activations:64KB"``, a cost by the target's table; or several of these.
            target: The target whose table counts: a name, a file or a target.
            direction: What importance is made of.
            steps: Number of calls of :meth:`step` in which the bound is to be reached.
            interval: Gates move at every ``interval``-th call; statistics are kept at each. By
                default every 5th, in short runs more often: with few moves each must be so large
                that gates fall far below the bound, important ones too.

        Raises:
            BoundError: A bound can't be parsed, or is below the smallest possible cost.
            ConfigError: There is no such target.
        """
        self.mirror = mirror
        specs = {name: quantizer.spec for name, quantizer in mirror.quantizers.items()}
        self.cost_model = CostModel.of(mirror.model, load_target(target).cost)
        self.budget = self.cost_model.budget(bound)
        self.budget.check_feasible()
        self._direction = Direction(direction)
        self._ladders = Ladders({name: spec.ladder.widths for name, spec in specs.items()})
        self._statistics = {
            name: RunningStatistics(spec, wanted_statistics(self._direction, spec.ladder.prunes))
            for name, spec in specs.items()
        }
        self._interval = interval or max(1, min(_LONGEST_INTERVAL, steps // _FEWEST_MOVES))
        self._speed = _LADDER_LENGTH * self._interval / (_REACH_SHARE * steps)
        self._costs: Amounts = ()
        self._costed: tuple[int, ...] = ()  # revisions of the widths that have this cost
        self._calls = 0
        self._violated_moves = 0
        self._moves_to_deadline = max(1, int(_DEADLINE_SHARE * steps / self._interval))
        for name, quantizer in mirror.quantizers.items():
            quantizer.observer = self._statistics[name]

    # -- state ----------------------------------------------------------------------------------

    @property
    def widths(self) -> Widths:
        """Bits of every gate, by tensor name."""
        return {name: quantizer.widths for name, quantizer in self.mirror.quantizers.items()}

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """The bounds, parsed."""
        return self.budget.bounds

    @property
    def costs(self) -> Amounts:
        """Current costs: one for each bound, in its unit."""
        revisions = tuple(quantizer.revision for quantizer in self.mirror.quantizers.values())
        if revisions != self._costed:
            self._costs, self._costed = self.budget.costs(self.widths), revisions
        return self._costs

    @property
    def satisfied(self) -> bool:
        """Whether the current costs are within all bounds."""
        return self.budget.keeps(self.costs)

    # -- moves ----------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self) -> None:
        """Moves the gates; call after ``loss.backward()``."""
        self._calls += 1
        if self._calls % self._interval:
            return
        satisfied = self.satisfied
        widths = self.widths
        lower = self._ladders.shifted(widths, -1)
        upper = self._ladders.shifted(widths, +1)
        # At the bottom of the ladder the step above is what is at stake.
        bottom = {name: widths[name] == lower[name] for name in widths}
        top = {name: np.where(bottom[name], upper[name], widths[name]) for name in widths}
        below = {name: np.where(bottom[name], widths[name], lower[name]) for name in widths}
        ranked = standardise(self._per_cost(self._importances(top, below), top, below))
        speed = self._speed
        if not satisfied:
            self._violated_moves += 1
            # The longer the violation lasts, the faster: the bound is met in time on every model.
            speed *= 1 + self._violated_moves / self._moves_to_deadline
        for name, rank in ranked.items():
            quantizer = self.mirror.quantizers[name]
            move = speed * gate_direction(rank, satisfied)
            self._set_gate(quantizer, quantizer.gate - move)

    def enforce(self) -> None:
        """Narrows the least important gates until all bounds are kept."""
        self.set_widths(narrow_until(self.budget, self._ladders, self.widths, self._score))

    def settle(self, integer_kernels: bool = True) -> None:
        """Fixes the widths: within the bounds, with nothing left to give.

        Args:
            integer_kernels: Narrow 16- and 32-bit tensors to 8 bits, which integer kernels run;
                otherwise only where a tensor with gates of its own per channel or element is
                mixed, since it is written as one integer tensor.
        """
        widths = self.widths
        multiplied = {operand.name for op in self.cost_model.ops for operand in (op.a, op.b)}
        for name, quantizer in self.mirror.quantizers.items():
            kernels = integer_kernels and name in multiplied
            widths[name] = _for_one_integer_tensor(quantizer, widths[name], kernels)
        widths = narrow_until(self.budget, self._ladders, widths, self._score)
        widths = widen_within(self.budget, self._ladders, widths, self._score, INTEGER_KERNEL_BITS)
        self.set_widths(widths)
        self.release()

    def set_widths(self, widths: Widths) -> None:
        """Sets gates to widths; ranges of weights that reach another width are fitted anew."""
        for name, quantizer in self.mirror.quantizers.items():
            if not np.array_equal(quantizer.widths, widths[name]):
                self._set_gate(quantizer, quantizer.gate_for(widths[name]))

    def plan(self) -> BitPlan:
        """The plan of the mirror as it is, made to keep the bounds, with its cost.

        The widths first fall until all bounds are kept. Then channels and elements of weights get
        the narrowest width that holds their codes (the values stay), so that plan, mirror and
        written file count the same.

        Returns:
            The plan, with the values of weights and biases that differ from the model's, for
            :func:`write_back`.
        """
        self.enforce()
        for name, quantizer in self.mirror.quantizers.items():
            values = self._values(name)
            if values is not None:
                narrow_to_codes(quantizer, values)
        plan = self.mirror.plan()
        widths = {name: tensor.widths for name, tensor in plan.tensors.items()}
        peak = any(bound.kind is CostKind.ACTIVATIONS for bound in self.bounds)
        cost = self.cost_model.plan_cost(widths, peak=peak)
        return plan.model_copy(update={"bound": self.budget.text, "cost": cost})

    def release(self) -> None:
        """Stops taking statistics, which makes training steps cheaper."""
        for quantizer in self.mirror.quantizers.values():
            quantizer.observer = None

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to guide on."""
        statistics = {name: item.state_dict() for name, item in self._statistics.items()}
        return {
            "calls": self._calls,
            "violated_moves": self._violated_moves,
            "statistics": statistics,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self._calls, self._violated_moves = state["calls"], state["violated_moves"]
        for name, item in state["statistics"].items():
            self._statistics[name].load_state_dict(item)

    # -- parts ----------------------------------------------------------------------------------

    def _values(self, name: str) -> Tensor | None:
        return self.mirror.value_parameter(name)

    def _importances(self, upper: Widths, lower: Widths) -> dict[str, Tensor]:
        return {
            name: importance(
                self._direction,
                quantizer,
                self._statistics[name],
                torch.from_numpy(np.asarray(upper[name])),
                torch.from_numpy(np.asarray(lower[name])),
                self._values(name),
            )
            for name, quantizer in self.mirror.quantizers.items()
        }

    def _per_cost(
        self, importances: Mapping[str, Tensor], upper: Widths, lower: Widths
    ) -> dict[str, Tensor]:
        """Drops gates that cost nothing; ``fisher`` is taken per unit of cost saved."""
        prices = self.budget.prices(self.costs)
        worth = self.budget.saving(prices, self.widths, upper, lower)
        result = {}
        for name, value in importances.items():
            if name not in worth or not np.any(upper[name] > lower[name]):
                continue
            saved = np.asarray(worth[name], dtype=np.float32)
            if not saved.any():
                continue
            if self._direction is Direction.FISHER:
                value = value / torch.as_tensor(np.maximum(saved, _FREE))
            result[name] = value
        return result

    def _score(self, upper: Widths, lower: Widths) -> Scores:
        with torch.no_grad():
            return {
                name: value.double().numpy()
                for name, value in self._importances(upper, lower).items()
            }

    def _set_gate(self, quantizer: GatedQuantizer, gate: Tensor) -> None:
        if not quantizer.set_gate(gate):
            return
        spec = quantizer.spec
        if spec.role is Role.ACTIVATION or spec.granularity is Granularity.ELEMENT:
            return
        values = self._values(spec.tensor)
        if values is not None:
            # The range of the width just reached was last fitted to other weights.
            quantizer.fit(values)


def _for_one_integer_tensor(
    quantizer: GatedQuantizer, widths: np.ndarray[tuple[int, ...], np.dtype[np.int64]], always: bool
) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    spec = quantizer.spec
    if spec.role is Role.BIAS or INTEGER_KERNEL_BITS not in spec.ladder.widths:
        return widths
    mixed = spec.role is Role.WEIGHT and len(np.unique(widths)) > 1
    return np.minimum(widths, INTEGER_KERNEL_BITS) if always or mixed else widths
