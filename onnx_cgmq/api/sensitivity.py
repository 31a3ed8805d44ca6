"""sensitivity(): what each tensor costs in accuracy, operations and bytes, measured and ranked."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Group
from typing_extensions import Unpack

from onnx_cgmq.api.agreement import json_values
from onnx_cgmq.api.opened_model import OpenedModel, chosen_config, open_model
from onnx_cgmq.api.output import OutputFiles
from onnx_cgmq.contract.bits import Role
from onnx_cgmq.contract.events import Event, Notice
from onnx_cgmq.contract.launch import Launch
from onnx_cgmq.contract.plan import BitPlan
from onnx_cgmq.cost.bops import Widths, op_bops
from onnx_cgmq.cost.bound import CostKind
from onnx_cgmq.cost.size import SizeCost
from onnx_cgmq.errors import ConfigError, ModelError
from onnx_cgmq.graph.files.load import ModelLike
from onnx_cgmq.inspection.terminal import Column, FittedTable, size_text
from onnx_cgmq.settings.config import Config, Settings

_WIDTH: Final = 4
"""The width at which tensors are ranked without a plan: the widest at which they differ much."""

_SAMPLES: Final = 64
_BATCH_SIZE: Final = 16
"""Samples on which losses are measured, and samples at once. Our choice, for time."""

_SHORTEST_NAME: Final = 16
"""To how many characters names are shortened in a narrow terminal."""

_DOMINANT: Final = 0.8
"""The tensors that make up this share of all losses dominate. Our choice."""


@dataclass(frozen=True)
class TensorSensitivity:
    """What one tensor costs.

    Attributes:
        name: Name of the tensor.
        role: Weight or activation.
        shape: Shape of the tensor; the batch of an activation (axis 0) is 1.
        width: The width by which it is ranked: that of the plan, or the one that was asked for.
        alone: The increase of the loss by width, if this tensor alone is quantized.
        among: By how much the loss falls if this tensor alone stays float, and every other tensor
            has its ``width``. Negative where errors happen to make up for each other.
        bops: Bit operations of the products that read the tensor by its own width, for one sample;
            every other tensor has its ``width``.
        stored_bytes: Bytes that the tensor takes in a file by its width; 0 for activations.
    """

    name: str
    role: Role
    shape: tuple[int, ...]
    width: int
    alone: Mapping[int, float]
    among: float
    bops: Mapping[int, int]
    stored_bytes: Mapping[int, int]

    @property
    def loss(self) -> float:
        """The increase of the loss at its ``width``; 0 if it stays float."""
        return self.alone.get(self.width, 0.0)


@dataclass(frozen=True)
class Sensitivity:
    """What each tensor costs in accuracy, measured, beside operations and bytes.

    Attributes:
        tensors: The tensors whose gates may select several widths, the costliest first: those with
            the largest :attr:`TensorSensitivity.loss`.
        samples: Number of samples on which losses were measured.
        bops: Bit operations of the whole model for one sample, if every tensor has its ``width``.
        weight_bytes: Bytes of the stored weights and biases, likewise.
        notes: What the user should know.
    """

    tensors: tuple[TensorSensitivity, ...]
    samples: int
    bops: int
    weight_bytes: int
    notes: tuple[str, ...] = field(default=(), repr=False)

    @property
    def dominant(self) -> tuple[TensorSensitivity, ...]:
        """The fewest tensors that make up 80 % of the sum of all losses."""
        wanted, sum_so_far = _DOMINANT * sum(tensor.loss for tensor in self.tensors), 0.0
        for count, tensor in enumerate(self.tensors):
            if sum_so_far >= wanted:
                return self.tensors[:count]
            sum_so_far += tensor.loss
        return self.tensors

    @property
    def text(self) -> str:
        """Which tensors dominate, in words."""
        count, total = len(self.dominant), len(self.tensors)
        if not count:
            return f"none of {total} tensors costs anything at its width"
        return f"{count} of {total} tensors make up {_DOMINANT:.0%} of the sum of all losses"

    def to_json(self, indent: int | None = 2) -> str:
        """Makes JSON text; values that are not finite become ``null``."""
        record = json_values(asdict(self))
        record["tensors"] = [
            json_values({**asdict(tensor), "role": tensor.role.value, "loss": tensor.loss})
            for tensor in self.tensors
        ]
        record["dominant"] = [tensor.name for tensor in self.dominant]
        return json.dumps(record, indent=indent)

    def table(self) -> Group:
        """Makes a table for a terminal, which rich prints."""
        widths = sorted({width for tensor in self.tensors for width in tensor.alone})
        table = FittedTable(
            Column("", right=True),
            Column("tensor", shortest=_SHORTEST_NAME),
            Column("role", priority=4),
            Column("bits", right=True),
            *(Column(f"loss at {width}", right=True, priority=1) for width in widths),
            Column("among all", right=True, priority=3),
            Column("BOPs", right=True, priority=5),
            Column("bytes", right=True, priority=6),
            title="What each tensor costs",
        )
        for rank, tensor in enumerate(self.tensors, 1):
            alone = (f"{tensor.alone[w]:.3g}" if w in tensor.alone else "" for w in widths)
            table.add_row(
                str(rank),
                tensor.name,
                tensor.role.value,
                str(tensor.width),
                *alone,
                f"{tensor.among:.3g}",
                f"{tensor.bops[tensor.width] / max(1, self.bops):.1%}",
                size_text(tensor.stored_bytes[tensor.width]) if tensor.role is Role.WEIGHT else "",
            )
        return Group(table, self.text)


def sensitivity(
    model: ModelLike,
    data: Any,
    *,
    learned: BitPlan | str | os.PathLike[str] | None = None,
    width: int = _WIDTH,
    samples: int = _SAMPLES,
    config: Config | None = None,
    progress: Callable[[Event], None] | None = None,
    **settings: Unpack[Settings],
) -> Sensitivity:
    """Measures what each tensor costs in accuracy, and counts what it costs otherwise.

    The loss is that of a run with the same settings. It is measured twice for each tensor: with
    this tensor alone quantized, at each width; and with every other tensor at its width and this
    one float. Ranges are calibrated, and nothing is learned: what a run wins back later is not
    in it.

    Args:
        model: A float ONNX model: path, ``onnx.ModelProto`` or ``onnx_ir.Model``.
        data: Samples, as for :func:`~onnx_cgmq.quantize`; labels are optional.
        learned: The plan that a run made, or its file. Tensors then have the widths of the plan,
            and the settings must be those of the run.
        width: Without a plan, the width of every tensor: the widest that it may have up to this
            one, or else its narrowest.
        samples: How many samples to measure on, at most.
        config: The settings, instead of ``settings``.
        progress: Is called with notes and with the progress.
        **settings: Fields of :class:`~onnx_cgmq.settings.config.Config`.

    Returns:
        The tensors whose gates may select several widths, the costliest first.

    Raises:
        ModelError: The model can't be read or has nothing to quantize, or the plan can't be read.
        UnsupportedOperatorError: The mirror lacks operators of the model.
        DataError: The data can't be read or does not fit the model.
        ConfigError: A setting is invalid, or the plan was not made with these settings.
    """
    config = chosen_config(config, settings)
    if samples < 1:
        raise ConfigError(f"{samples} samples: give at least one to measure on")
    Launch.of_environment().check_alone("sensitivity")
    opened = open_model(
        model, data, "100%", validation=None, config=config, files=OutputFiles(), show=progress
    )
    widths = _widths(opened, width) if learned is None else _planned(opened, _read(learned))
    emit = progress or (lambda _: None)
    for note in opened.notes:
        emit(Notice(note))

    from onnx_cgmq.learn.opened_run import Data, OpenedRun  # loads torch
    from onnx_cgmq.learn.sensitivity import tensor_losses
    from onnx_cgmq.mirror.torch_state import plain_torch

    with plain_torch(opened.config.seed):
        parts = Data(opened.train, opened.held_out)
        run = OpenedRun.open(opened.float_model, opened.gated, parts, opened.config, emit)
        found = tensor_losses(run, widths, samples, _BATCH_SIZE, emit)
    tensors = []
    for name, losses in found.items():
        spec, own = opened.costs.specs[name], int(widths[name].max())
        choices = sorted({own, *losses.alone})
        at = {w: {**widths, name: np.full_like(widths[name], w)} for w in choices}
        tensors.append(
            TensorSensitivity(
                name,
                spec.role,
                spec.shape,
                own,
                losses.alone,
                losses.among,
                {w: _bops_of(opened, name, at[w]) for w in choices},
                {w: _bytes_of(opened, name, at[w]) for w in choices},
            )
        )
    cost = opened.costs.plan_cost(widths)
    return Sensitivity(
        tuple(sorted(tensors, key=lambda tensor: -tensor.loss)),
        min(samples, len(opened.train)),
        cost.bops,
        cost.weight_bytes,
        opened.notes,
    )


def _widths(opened: OpenedModel, width: int) -> Widths:
    """The widest width of each tensor up to a width, or else its narrowest.

    Raises:
        ConfigError: No tensor may have that width or a narrower one.
    """
    chosen = {}
    for name, spec in opened.costs.specs.items():
        ladder = spec.ladder.nonzero
        widest = max((w for w in ladder if w <= width), default=ladder[0])
        chosen[name] = np.full(spec.gate_shape, widest, dtype=np.int64)
    if not any((widths <= width).all() for widths in chosen.values()):
        raise ConfigError(f"no tensor may have {width} bits or fewer; give one of its widths")
    return chosen


def _read(plan: BitPlan | str | os.PathLike[str]) -> BitPlan:
    if isinstance(plan, BitPlan):
        return plan
    try:
        return BitPlan.load(Path(plan))
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(
            f"the plan {os.fspath(plan)} can't be read: {error}; give the NAME.plan.json that a "
            "run wrote"
        ) from error


def _planned(opened: OpenedModel, plan: BitPlan) -> Widths:
    """The widths of a plan. A tensor that the plan leaves out stays float.

    Raises:
        ConfigError: The plan is that of another model, or of other settings.
    """
    advice = "give the model, the data and the settings of the run that made the plan"
    unknown = [name for name in plan.tensors if name not in opened.costs.specs]
    if unknown:
        raise ConfigError(
            f"the plan has tensors that have no quantizer here, such as {unknown[0]!r}; {advice}"
        )
    for name, tensor in plan.tensors.items():
        spec = opened.costs.specs[name]
        odd = set(tensor.widths.reshape(-1).tolist()) - {*spec.ladder.widths}
        if odd or tensor.widths.shape != spec.gate_shape:
            found = f"{min(odd)} bits" if odd else f"gates of shape {list(tensor.widths.shape)}"
            raise ConfigError(f"the plan has {found} for {name!r}, not allowed here; {advice}")
    return {name: tensor.widths for name, tensor in plan.tensors.items()}


def _bops_of(opened: OpenedModel, name: str, widths: Widths) -> int:
    """Counts the bit operations of the products that read a tensor."""
    return sum(op_bops(op, widths) for op in opened.costs.ops if name in (op.a.name, op.b.name))


def _bytes_of(opened: OpenedModel, name: str, widths: Widths) -> int:
    """Counts the bytes that a tensor takes in a file."""
    size = opened.costs.cost(CostKind.SIZE)
    assert isinstance(size, SizeCost)
    spec = {name: opened.costs.specs[name]}
    return sum(size.storage.tensor_bytes(spec, {name: widths[name]}).values())
