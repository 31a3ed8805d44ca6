"""Verify: the written model in onnxruntime against the model it was made from."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir

from onnx_cgmq.api.agreement import Agreement
from onnx_cgmq.contract.bits import FLOAT_BITS, Role
from onnx_cgmq.cost.bops import FLOAT_BOPS_PER_MAC
from onnx_cgmq.cost.bound import (
    Amount,
    Bound,
    Bounds,
    CostKind,
    bounds_text,
    parse_bounds,
    unknown_cost,
)
from onnx_cgmq.cost.table import price_of
from onnx_cgmq.data import Batch, open_data
from onnx_cgmq.errors import VerificationError
from onnx_cgmq.graph.files.load import ModelLike, load_model
from onnx_cgmq.inspection import Report, inspect
from onnx_cgmq.ort.session import Outputs, counted, open_written, run_batch
from onnx_cgmq.settings import DEFAULT_TARGET, TargetLike, load_target
from onnx_cgmq.settings.cost_table import CostTable

if TYPE_CHECKING:  # torch loads only if a mirror is given
    from onnx_cgmq.mirror.module import Mirror

_BATCH_SIZE = 256


@dataclass(frozen=True)
class Check:
    """How a deployed model compares with its reference.

    Attributes:
        samples: Number of samples compared.
        class_agreement: Share of samples for which both predict the same class, or ``None`` if no
            output is ``[batch, classes]``.
        max_abs_difference: Largest difference between any two output values; infinite if the two
            find different numbers of things, such as boxes.
        mean_abs_difference: Mean difference of output values.
        accuracy: Share of samples that the deployed model classifies right, or ``None`` without
            labels or classes.
        reference_accuracy: The same of the reference.
        bops: Bit operations for one sample, counted from the deployed model alone.
        rbop: These as a share of the float model's.
        weight_bytes: Bytes of its stored weights and biases.
        bound: The bound that was asked for (several with commas), or ``None``.
        within_bound: Whether the cost keeps it, or ``None`` without a bound.
        peak_activation_bytes: Bytes of the activations that are needed at the same time, at most;
            ``None`` if the file does not say which are.
        table_cost: What its multiply-accumulates cost by the target's table, if any.
        table_unit: Unit of that table.
        notes: Sentences on what its cost may leave out, as :class:`Report` has them.
    """

    samples: int
    class_agreement: float | None
    max_abs_difference: float
    mean_abs_difference: float
    accuracy: float | None
    reference_accuracy: float | None
    bops: int
    rbop: float
    weight_bytes: int
    bound: str | None
    within_bound: bool | None
    peak_activation_bytes: int | None = None
    table_cost: float | None = None
    table_unit: str | None = None
    notes: tuple[str, ...] = ()

    def to_json(self, indent: int | None = 2) -> str:
        """JSON text; ``indent=None`` for one line. Values that aren't finite become ``null``."""
        record = {
            name: None if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in asdict(self).items()
        }
        return json.dumps(record, indent=indent)


def verify(
    reference: Mirror | ModelLike,
    deployed: ModelLike,
    data: Any,
    *,
    bound: Bounds | None = None,
    target: TargetLike = DEFAULT_TARGET,
) -> Check:
    """Runs both models on the same samples and counts the cost of the deployed one.

    Args:
        reference: The mirror that the quantized model was written from, or a model (usually the
            float one), which runs in onnxruntime too.
        deployed: The quantized model; runs in onnxruntime with its default optimizations, in the
            forms ``native`` and ``qonnx`` as :func:`~onnx_cgmq.ort.session.open_written` says.
        data: Samples in any form that :func:`onnx_cgmq.quantize` takes.
        bound: The bound that the deployed model has to keep, or several.
        target: The target whose cost table counts, if a bound is on that.

    Raises:
        ModelError: A model can't be read or run, or the two have different outputs.
        DataError: The data can't be read or does not fit the model.
        BoundError: A bound can't be parsed, or its cost can't be counted.
        ConfigError: There is no such target.
        VerificationError: The deployed model costs more than a bound.
    """
    report, table = inspect(deployed), load_target(target).cost
    costs = _Counted(report, table)
    bounds = None if bound is None else costs.parse(bound)
    for limit in bounds or ():
        costs.check(limit)
    samples = open_data(data, load_model(deployed))
    session = open_written(deployed)
    run_reference = _runner(reference)
    agreement = Agreement()
    for batch in samples.batches(_BATCH_SIZE):
        agreement.add(run_batch(session, batch), run_reference(batch), batch)
    return Check(
        samples=len(samples),
        class_agreement=agreement.share(agreement.agreeing),
        max_abs_difference=agreement.largest,
        mean_abs_difference=agreement.mean,
        accuracy=agreement.share(agreement.correct) if samples.has_labels else None,
        reference_accuracy=agreement.share(agreement.reference_correct)
        if samples.has_labels
        else None,
        bops=report.bops,
        rbop=report.rbop,
        weight_bytes=report.weight_bytes,
        bound=None if bounds is None else bounds_text(bounds),
        within_bound=None if bounds is None else True,
        peak_activation_bytes=report.peak_activation_bytes,
        table_cost=None if table is None else float(price_of(report.pairs, table)),
        table_unit=None if table is None else table.unit,
        notes=report.notes,
    )


def _runner(reference: Mirror | ModelLike) -> Callable[[Batch], Outputs]:
    if isinstance(reference, (str, os.PathLike, onnx.ModelProto, ir.Model)):
        session = open_written(reference)
        return lambda batch: run_batch(session, batch)
    mirror = reference
    return lambda batch: _run_mirror(mirror, batch)


def _run_mirror(mirror: Mirror, batch: Batch) -> Outputs:
    import torch

    from onnx_cgmq.learn.batches import tensors

    training = mirror.training
    mirror.eval()
    try:
        with torch.no_grad():
            outputs = mirror(tensors(batch.inputs))
    finally:
        mirror.train(training)
    return {name: counted(value.detach().cpu().numpy(), batch) for name, value in outputs.items()}


@dataclass(frozen=True)
class _Counted:
    """Costs of a deployed model, counted from its file."""

    report: Report
    table: CostTable | None

    def parse(self, bounds: Bounds) -> tuple[Bound, ...]:
        """Reads bounds.

        Raises:
            BoundError: One can't be parsed, or its cost can't be counted.
        """
        return parse_bounds(bounds, self._whole, "" if self.table is None else self.table.unit)

    def check(self, bound: Bound) -> None:
        """Checks one bound.

        Raises:
            BoundError: Its cost can't be counted.
            VerificationError: The model costs more.
        """
        cost = self._cost(bound.kind)
        if cost is None:
            raise unknown_cost(bound.kind, bound)
        if bound.is_satisfied_by(cost):
            return
        whole = self._whole(bound.kind)
        share = f" ({float(cost / whole):.3%} of the float model)" if whole else ""
        raise VerificationError(
            f"the model costs {bound.describe(cost)}{share}, but the bound {bound.text!r} allows "
            f"{bound.describe(bound.limit)}; quantize it again with this bound"
        )

    def _cost(self, kind: CostKind) -> Amount | None:
        if kind is CostKind.BOPS:
            return self.report.bops
        if kind is CostKind.SIZE:
            return self.report.weight_bytes
        if kind is CostKind.ACTIVATIONS:
            return self.report.peak_activation_bytes
        return None if self.table is None else price_of(self.report.pairs, self.table)

    def _whole(self, kind: CostKind) -> Amount | None:
        """The cost of the float model."""
        report = self.report
        if kind is CostKind.BOPS:
            return FLOAT_BOPS_PER_MAC * report.macs
        if kind is CostKind.SIZE:
            stored = [item for item in report.tensors.values() if item.role is not Role.ACTIVATION]
            return FLOAT_BITS // 8 * sum(math.prod(tensor.shape) for tensor in stored)
        if kind is CostKind.ACTIVATIONS:
            return report.float_activation_bytes
        if self.table is None:
            return None
        return price_of({(FLOAT_BITS, FLOAT_BITS): report.macs}, self.table)
