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

from onnx_cgmq.agreement import Agreement
from onnx_cgmq.bits import FLOAT_BITS, Role
from onnx_cgmq.cost.bound import Bound, CostKind, parse_bound
from onnx_cgmq.data import Batch, open_data
from onnx_cgmq.errors import VerificationError
from onnx_cgmq.graph.files.load import ModelLike, load_model
from onnx_cgmq.inspection import Report, inspect
from onnx_cgmq.runtime import Outputs, counted, open_written, run_batch

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
        bound: The bound that was asked for, or ``None``.
        within_bound: Whether the cost keeps it, or ``None`` without a bound.
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

    def to_json(self, indent: int | None = 2) -> str:
        """JSON text; ``indent=None`` for one line. Values that aren't finite become ``null``."""
        record = {
            name: None if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in asdict(self).items()
        }
        return json.dumps(record, indent=indent)


def verify(
    deployed: ModelLike,
    reference: Mirror | ModelLike,
    data: Any,
    *,
    bound: str | float | Bound | None = None,
) -> Check:
    """Runs both models on the same samples and counts the cost of the deployed one.

    Args:
        deployed: The quantized model; runs in onnxruntime with its default optimizations, in the
            forms ``native`` and ``qonnx`` as :func:`~onnx_cgmq.runtime.open_written` says.
        reference: The mirror that it was written from, or a model (usually the float one), which
            runs in onnxruntime too.
        data: Samples in any form that :func:`onnx_cgmq.quantize` takes.
        bound: The bound that the deployed model has to keep.

    Raises:
        ModelError: A model can't be read or run, or the two have different outputs.
        DataError: The data can't be read or does not fit the model.
        BoundError: The bound can't be parsed.
        VerificationError: The deployed model costs more than the bound.
    """
    report = inspect(deployed)
    limit = None if bound is None else _parsed(bound, report)
    if limit is not None:
        _check_bound(limit, report)
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
        bound=None if limit is None else limit.text,
        within_bound=None if limit is None else True,
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


def _parsed(bound: str | float | Bound, report: Report) -> Bound:
    stored = [tensor for tensor in report.tensors.values() if tensor.role is not Role.ACTIVATION]
    float_bytes = FLOAT_BITS // 8 * sum(math.prod(tensor.shape) for tensor in stored)
    return parse_bound(bound, report.macs, float_bytes)


def _check_bound(bound: Bound, report: Report) -> None:
    size = bound.kind is CostKind.SIZE
    cost = report.weight_bytes if size else report.bops
    if bound.is_satisfied_by(cost):
        return
    unit = "bytes of weights" if size else f"bit operations (RBOP {report.rbop:.3%})"
    raise VerificationError(
        f"the model costs {cost:,} {unit}, but the bound {bound.text!r} allows {bound.limit:,}; "
        "quantize it again with this bound"
    )
