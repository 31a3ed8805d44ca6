"""The guide: moves gates until all bounds are kept (CGMQ, arXiv 2409.20138)."""

from __future__ import annotations

import math
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
from onnx_cgmq.learn.integer_widths import for_one_integer_tensor
from onnx_cgmq.learn.measured_losses import MeasuredLosses
from onnx_cgmq.learn.pair_room import leave_room_for_pairs
from onnx_cgmq.learn.statistics import RunningStatistics
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.mirror.quantizers.quantizer import GatedQuantizer
from onnx_cgmq.mirror.quantizers.tensor_plans import narrow_to_codes
from onnx_cgmq.mirror.torch_state import plain_torch
from onnx_cgmq.settings import DEFAULT_TARGET, TargetLike, load_target
from onnx_cgmq.settings.config import Direction

_LADDER_LENGTH = 5.0
"""The distance that a gate moves from the widest to the narrowest width. The widths from 2 to 32
bits have an interval of length 1 each (CGMQ, arXiv 2409.20138: gates start at 5.5, 2 bits are at
0.5)."""

_REACH_SHARE = 0.4
"""The share of the training steps in which a gate with the direction 1 falls down the whole ladder.
Our choice: more than half of the steps are left for gates to rise again where it helps."""

_DEADLINE_SHARE = 0.25
"""Gates move twice as fast after a bound was broken for this share of the training steps, three
times as fast after twice as many, and so on. Our choice, so that the bound is reached on every
model."""

_LONGEST_INTERVAL = 5
"""The largest number of training steps from one move to the next. Our choice: importance changes
slowly, and a move takes as long as a training step."""

_FEWEST_MOVES = 50
"""How often gates should move even in a short run. Our choice: each move is then small enough for
gates to stop near the bound."""

_FREE = 1e-12
"""The smallest saving by which importance is divided, so that nothing is divided by zero."""


class Guide:
    """Moves a mirror's gates so that its cost keeps one bound or several.

    Call :meth:`step` after every ``loss.backward()``. While a bound is broken, all gates that count
    for it fall, the least important ones fastest. While all bounds are kept, gates rise, the most
    important ones fastest. :meth:`settle` fixes the widths within the bounds. :meth:`enforce`
    narrows any state until it keeps the bounds.

    Attributes:
        mirror: The guided mirror.
        cost_model: Counts the cost of an assignment of widths.
        budget: The bounds, with the costs that they limit.
        measured: Losses that were measured, which take the place of the expected ones for tensors
            with one gate; empty if none were.
    """

    @plain_torch()
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
            bound: ``"0.4%"`` (share of the float model's bit operations), ``"12.5MBOP"``, a size
                (``"200KB"``), ``"activations:64KB"``, a cost by the target's table
                (``"cost:25%"``); or several of these.
            target: The target whose cost table counts: its name, its file or the target itself.
            direction: What importance is made of.
            steps: Number of calls of :meth:`step` in which the bound is to be reached.
            interval: Gates move at every ``interval``-th call, and statistics are collected at
                every call. The default is 5, and less in short runs: with few moves, each must be
                so large that even important gates fall far below the bound.

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
        self.measured: MeasuredLosses = {}
        self._costs: Amounts = ()
        self._costed_revisions: tuple[int, ...] = ()  # the widths that have these costs
        self._calls = 0
        self._moves_while_broken = 0
        self._moves_to_deadline = max(1, int(_DEADLINE_SHARE * steps / self._interval))
        for name, quantizer in mirror.quantizers.items():
            quantizer.observer = self._statistics[name]

    # -- state ----------------------------------------------------------------------------------

    @property
    def widths(self) -> Widths:
        """The width of every gate, in arrays of the gates' shapes, by tensor name."""
        return {name: quantizer.widths for name, quantizer in self.mirror.quantizers.items()}

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """The bounds that the guide keeps."""
        return self.budget.bounds

    @property
    def costs(self) -> Amounts:
        """The current costs: one for each bound, in its unit."""
        revisions = tuple(quantizer.revision for quantizer in self.mirror.quantizers.values())
        if revisions != self._costed_revisions:
            self._costs, self._costed_revisions = self.budget.costs(self.widths), revisions
        return self._costs

    @property
    def satisfied(self) -> bool:
        """Whether the current costs keep all bounds."""
        return self.budget.keeps(self.costs)

    def needs_losses(self, integer_kernels: bool = True) -> bool:
        """Whether gates have to narrow for the bounds beyond :meth:`settle`, or may widen."""
        widths = self._for_kernels(integer_kernels)
        if not self.budget.keeps(self.budget.costs(widths)):
            return True
        wider = self._ladders.shifted(widths, +1)
        return any(
            ((wider[name] > widths[name]) & (wider[name] <= INTEGER_KERNEL_BITS)).any()
            for name in self.counted
        )

    @property
    def counted(self) -> frozenset[str]:
        """Names of the tensors whose widths count for a bound."""
        upper = self.widths
        lower = self._ladders.shifted(upper, -1)
        every = tuple(1.0 for _ in self.bounds)
        return frozenset(self.budget.saving(every, upper, upper, lower))

    def mean_bits(self, role: Role) -> float:
        """Returns the mean width of all elements of tensors of a role; 0 if there are none."""
        bits, count = 0.0, 0
        for quantizer in self.mirror.quantizers.values():
            if quantizer.spec.role is role:
                bits += float(np.broadcast_to(quantizer.widths, quantizer.spec.shape).sum())
                count += math.prod(quantizer.spec.shape)
        return bits / max(1, count)

    # -- moves ----------------------------------------------------------------------------------

    @plain_torch()
    @torch.no_grad()
    def step(self) -> None:
        """Moves the gates; call it after ``loss.backward()``."""
        self._calls += 1
        if self._calls % self._interval:
            return
        satisfied = self.satisfied
        widths = self.widths
        lower = self._ladders.shifted(widths, -1)
        upper = self._ladders.shifted(widths, +1)
        # The importance of a gate is what it loses in its next narrower width. A gate at the bottom
        # of its ladder has none; there it is what the gate would gain in the next wider one.
        bottom = {name: widths[name] == lower[name] for name in widths}
        top = {name: np.where(bottom[name], upper[name], widths[name]) for name in widths}
        below = {name: np.where(bottom[name], widths[name], lower[name]) for name in widths}
        ranked = standardise(self._per_cost(self._importances(top, below), top, below))
        speed = self._speed
        if not satisfied:
            self._moves_while_broken += 1
            # Gates fall faster the longer a bound is broken, so that it is reached on every model.
            speed *= 1 + self._moves_while_broken / self._moves_to_deadline
        for name, rank in ranked.items():
            quantizer = self.mirror.quantizers[name]
            move = speed * gate_direction(rank, satisfied)
            self._set_gate(quantizer, quantizer.gate - move)

    @plain_torch()
    def enforce(self) -> None:
        """Narrows the least important gates until all bounds are kept."""
        self.set_widths(narrow_until(self.budget, self._ladders, self.widths, self._score))

    @plain_torch()
    def settle(self, integer_kernels: bool = True) -> None:
        """Fixes the widths within the bounds, and gives what is left of these to gates.

        Statistics are no longer collected afterwards (see :meth:`release`).

        Args:
            integer_kernels: Narrow operands of multiply-accumulates at 16 and 32 bits to 8 bits,
                which integer kernels need. Otherwise only weights whose gates have different
                widths are narrowed, because a weight is written as one integer tensor.
        """
        widths = self._for_kernels(integer_kernels)
        widths = narrow_until(self.budget, self._ladders, widths, self._score)
        widths = widen_within(self.budget, self._ladders, widths, self._score, INTEGER_KERNEL_BITS)
        self.set_widths(widths)
        leave_room_for_pairs(self.mirror, spare=1)
        self.release()

    @plain_torch()
    def set_widths(self, widths: Widths) -> None:
        """Sets the widths of all gates; ranges of weights with new widths are fitted again."""
        for name, quantizer in self.mirror.quantizers.items():
            if not np.array_equal(quantizer.widths, widths[name]):
                self._set_gate(quantizer, quantizer.gate_for(widths[name]))

    @plain_torch()
    def plan(self) -> BitPlan:
        """Narrows the mirror until it keeps the bounds, and returns its plan with the cost.

        Afterwards channels and elements of weights have the narrowest width that holds their codes.
        Their values stay the same, and plan, mirror and written file have the same cost.

        Returns:
            The plan for :func:`~onnx_cgmq.writing.write_back.write_back`, with the values of those
            weights and biases that differ from the model's.
        """
        self.enforce()
        leave_room_for_pairs(self.mirror, only_grow=True)
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
        """Stops collecting statistics, which makes training steps faster."""
        for quantizer in self.mirror.quantizers.values():
            quantizer.observer = None

    def state_dict(self) -> dict[str, Any]:
        """Returns the state for a checkpoint."""
        statistics = {name: item.state_dict() for name, item in self._statistics.items()}
        return {
            "calls": self._calls,
            "violated_moves": self._moves_while_broken,
            "statistics": statistics,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores a state of :meth:`state_dict`."""
        self._calls, self._moves_while_broken = state["calls"], state["violated_moves"]
        for name, item in state["statistics"].items():
            self._statistics[name].load_state_dict(item, self.mirror.device)

    # -- parts ----------------------------------------------------------------------------------

    def _values(self, name: str) -> Tensor | None:
        return self.mirror.value_parameter(name)

    def _for_kernels(self, integer_kernels: bool) -> Widths:
        """The present widths, narrowed to what integer kernels take."""
        widths = self.widths
        multiplied = {operand.name for op in self.cost_model.ops for operand in (op.a, op.b)}
        for name, quantizer in self.mirror.quantizers.items():
            kernels = integer_kernels and name in multiplied
            widths[name] = for_one_integer_tensor(quantizer.spec, widths[name], kernels)
        return widths

    def _importances(self, upper: Widths, lower: Widths) -> dict[str, Tensor]:
        found = {}
        for name, quantizer in self.mirror.quantizers.items():
            losses = self.measured.get(name)
            if losses is not None and quantizer.spec.granularity is Granularity.TENSOR:
                grown = losses.get(int(lower[name]), 0.0) - losses.get(int(upper[name]), 0.0)
                found[name] = torch.tensor(max(0.0, grown), device=self.mirror.device)
                continue
            found[name] = importance(
                self._direction,
                quantizer,
                self._statistics[name],
                torch.from_numpy(np.asarray(upper[name])).to(self.mirror.device),
                torch.from_numpy(np.asarray(lower[name])).to(self.mirror.device),
                self._values(name),
            )
        return found

    def _per_cost(
        self, importances: Mapping[str, Tensor], upper: Widths, lower: Widths
    ) -> dict[str, Tensor]:
        """Drops tensors that save no cost, and divides ``fisher`` by the cost that gates save."""
        prices = self.budget.prices(self.costs)
        savings = self.budget.saving(prices, self.widths, upper, lower)
        result = {}
        for name, value in importances.items():
            if name not in savings or not np.any(upper[name] > lower[name]):
                continue
            saved = np.asarray(savings[name], dtype=np.float32)
            if not saved.any():
                continue
            if self._direction is Direction.FISHER:
                value = value / torch.as_tensor(np.maximum(saved, _FREE), device=value.device)
            result[name] = value
        return result

    def _score(self, upper: Widths, lower: Widths) -> Scores:
        with torch.no_grad():
            return {
                name: value.cpu().double().numpy()
                for name, value in self._importances(upper, lower).items()
            }

    def _set_gate(self, quantizer: GatedQuantizer, gate: Tensor) -> None:
        if not quantizer.set_gate(gate):
            return
        spec = quantizer.spec
        if spec.role is Role.ACTIVATION or spec.granularity is Granularity.ELEMENT:
            return
        values = self._values(spec.tensor)
        if values is not None and not quantizer.is_fitted_to(values):
            quantizer.fit(values)
