"""verify(): compares a written model in onnxruntime with the model that it was made from."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeGuard

import onnx
import onnx_ir as ir

from onnx_cgmq.api.agreement import Agreement, OutputAgreement, json_values
from onnx_cgmq.api.file_costs import FileCosts
from onnx_cgmq.api.nearness import Run, as_near
from onnx_cgmq.cost.bound import Bounds, bounds_text
from onnx_cgmq.cost.table import price_of
from onnx_cgmq.data import Batch, Samples, open_data
from onnx_cgmq.errors import AgreementError, ModelError
from onnx_cgmq.graph.files.load import ModelLike, load_model
from onnx_cgmq.graph.operators import Dependence, dependence_of
from onnx_cgmq.inspection import inspect
from onnx_cgmq.ort.batch_size import samples_at_once
from onnx_cgmq.ort.lookups import check_lookups
from onnx_cgmq.ort.session import (
    Outputs,
    Runnable,
    open_session,
    open_written,
    run_batch,
    without_padding,
)
from onnx_cgmq.settings import DEFAULT_TARGET, TargetLike, load_target

if TYPE_CHECKING:  # torch loads only if a mirror is given
    from onnx_cgmq.mirror.module import Mirror

_BATCH_SIZE = 32
_MOST_UNOPTIMIZED = 2048  # samples that are run without optimizations too

LEAST_AGREEMENT_DB: Final = 20.0
"""Below this most samples differ by more than a tenth of what the outputs vary by. A model computes
something else then than what it was made from, unless it is as near to the float model all the
same. Our choice: sums that are rounded in another order, and single codes of 8 bits that flip by
them, come nowhere near it."""

GOOD_AGREEMENT_DB: Final = 40.0
"""From here on most samples differ by less than a hundredth of what the outputs vary by."""


@dataclass(frozen=True)
class Check:
    """How a deployed model compares with its reference, and what it costs.

    Attributes:
        samples: Number of samples compared.
        class_agreement: Share of samples for which both models predict the same class; ``None`` if
            no output has class scores ``[batch, classes]``. Of positions, if a model gives the
            probabilities of classes for each position.
        max_abs_difference: Largest absolute difference of two output values. It is infinite if the
            models find different numbers of things, such as boxes.
        mean_abs_difference: Mean absolute difference of output values.
        accuracy: Share of samples that the deployed model classifies right; ``None`` without labels
            or class scores.
        reference_accuracy: Share of samples that the reference classifies right, likewise.
        bops: Bit operations for one sample, counted from the deployed model alone.
        rbop: These bit operations as a share of the float model's.
        weight_bytes: Bytes of stored weights and biases.
        bound: The bound that was asked for (several are separated by commas), or ``None``.
        within_bound: Whether the cost keeps the bound; ``None`` without a bound.
        peak_activation_bytes: Most bytes of activations that are needed at the same time; ``None``
            if the file does not say which activations are.
        table_cost: What the multiply-accumulates cost by the target's cost table, if it has one.
        table_unit: The unit of the cost table.
        notes: Sentences on how data was read; on what the cost may leave out, as in
            :class:`~onnx_cgmq.inspection.Report`; and on the form of the deployed model, if stock
            onnxruntime does not run it as it was run here.
        mirror_db: How far the outputs of the mirror stand above their differences to those of the
            deployed model, in dB, for a sample in the middle; infinite if these are equal, ``None``
            if the reference is no mirror, or if chance decides.
        optimization_db: The same between the deployed model without onnxruntime's optimizations and
            with them; ``None`` for forms that run without.
        as_near: Where one of these two is below 20 dB: whether the deployed model is as near to the
            float model as what it differs from, as where codes of few bits flip; else ``None``.
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
    mirror_db: float | None = None
    optimization_db: float | None = None
    as_near: bool | None = None
    outputs: Mapping[str, OutputAgreement] = field(default_factory=dict)

    @property
    def agreement_db(self) -> float:
        """The smaller of ``mirror_db`` and ``optimization_db``; infinite if there is neither."""
        return min(
            (db for db in (self.mirror_db, self.optimization_db) if db is not None),
            default=math.inf,
        )

    @property
    def agrees(self) -> bool:
        """Whether the deployed model computes what it was made to compute."""
        return self.agreement_db >= LEAST_AGREEMENT_DB or bool(self.as_near)

    def to_json(self, indent: int | None = 2) -> str:
        """Returns JSON text; with ``indent=None`` it is on one line.

        Values that are not finite become ``null``.
        """
        return json.dumps(json_values(asdict(self)), indent=indent)


def verify(
    reference: Mirror | ModelLike,
    deployed: ModelLike,
    data: Any,
    *,
    bound: Bounds | None = None,
    target: TargetLike = DEFAULT_TARGET,
    float_model: ModelLike | None = None,
) -> Check:
    """Runs two models on the same samples, and counts the cost of the deployed one.

    Args:
        reference: The mirror from which the deployed model was written, or a model (usually the
            float one), which runs in onnxruntime too.
        deployed: The deployed model. It runs in onnxruntime with all optimizations, or without any
            if its form is ``native`` or ``qonnx``
            (:func:`~onnx_cgmq.ort.session.open_written`).
        data: Samples in any form that :func:`onnx_cgmq.quantize` takes.
        bound: The bound that the deployed model has to keep, or several.
        target: The target whose cost table counts: its name, its file or the target itself.
        float_model: The float model, if the reference is a mirror: where codes of few bits flip, a
            deployed model may differ from its mirror, and be as near to this one.

    Returns:
        How the two compare, and the cost of the deployed model.

    Raises:
        ModelError: A model can't be read or run, or the two have different outputs.
        DataError: The data can't be read or does not fit the model.
        BoundError: A bound can't be parsed, or its cost can't be counted.
        ConfigError: There is no such target.
        VerificationError: The deployed model breaks a bound.
        AgreementError: It computes something else than the mirror that it was written from, or than
            onnxruntime computes without optimizations.
    """
    report, table = inspect(deployed), load_target(target).cost
    costs = FileCosts(report, table)
    bounds = None if bound is None else costs.parse(bound)
    for limit in bounds or ():
        costs.check(limit)
    graph = load_model(deployed)
    samples = open_data(data, graph)
    check_lookups(load_model(reference) if _is_model(reference) else graph, samples)
    runnable = Runnable.of(deployed)
    session = open_written(deployed)
    repeats = not decided_by_chance(graph)
    plain = open_session(deployed, optimize=False) if repeats and runnable.optimize else None
    run_reference, batch_size = _runner(reference), samples_at_once(graph, _BATCH_SIZE)
    agreement, unoptimized = Agreement(), Agreement()
    with _plain_torch(reference):
        for batch in samples.batches(batch_size):
            outputs = run_batch(session, batch)
            agreement.add(outputs, run_reference(batch), batch)
            if plain is not None and unoptimized.samples < _MOST_UNOPTIMIZED:
                unoptimized.add(outputs, run_batch(plain, batch), batch)
    check = Check(
        samples=len(samples),
        class_agreement=agreement.same_class,
        max_abs_difference=agreement.largest,
        mean_abs_difference=agreement.mean,
        accuracy=agreement.accuracy,
        reference_accuracy=agreement.reference_accuracy,
        bops=report.bops,
        rbop=report.rbop,
        weight_bytes=report.weight_bytes,
        bound=None if bounds is None else bounds_text(bounds),
        within_bound=None if bounds is None else True,
        peak_activation_bytes=report.peak_activation_bytes,
        table_cost=None if table is None else float(price_of(report.pairs, table)),
        table_unit=None if table is None else table.unit,
        notes=(*samples.notes, *report.notes, *filter(None, [runnable.note])),
        mirror_db=agreement.decibels if repeats and not _is_model(reference) else None,
        optimization_db=None if plain is None else unoptimized.decibels,
        outputs=agreement.outputs,
    )
    if check.agrees:
        return check
    compared = [] if _is_model(reference) else [run_reference]
    if plain is not None:
        compared.append(partial(run_batch, plain))
    known = reference if _is_model(reference) else float_model
    with _plain_torch(reference):
        near = _is_as_near(known, partial(run_batch, session), compared, samples, batch_size)
    check = replace(check, as_near=near)
    if not near:
        raise AgreementError(_disagreement(check))
    return check


def _is_as_near(
    float_model: ModelLike | None,
    deployed: Run,
    compared: Sequence[Run],
    samples: Samples,
    batch_size: int,
) -> bool:
    """Whether the differences do no harm; not, if the float model can't be asked."""
    if float_model is None:
        return False
    try:
        session = open_written(float_model)
    except ModelError:  # onnxruntime has no kernels for bfloat16, say
        return False
    drawn = samples.drawn(_MOST_UNOPTIMIZED)
    return as_near(partial(run_batch, session), deployed, compared, drawn, batch_size)


def decided_by_chance(model: ir.Model) -> bool:
    """Whether a model may give other outputs each time that it runs."""
    return any(dependence_of(n) is Dependence.ON_CHANCE for n in model.graph.all_nodes())


def _disagreement(check: Check) -> str:
    optimized = check.optimization_db is not None and check.optimization_db < LEAST_AGREEMENT_DB
    what = (
        "with onnxruntime's optimizations than without them"
        if optimized
        else "than the mirror that it was written from"
    )
    return (
        f"the model computes something else {what}: for most samples the outputs are only "
        f"{check.agreement_db:.1f} dB above the differences (at least {LEAST_AGREEMENT_DB:.0f} dB "
        "are needed); please report it with the model. With optimizations disabled "
        "(graph_optimization_level) onnxruntime computes what the file says"
    )


def _is_model(reference: Mirror | ModelLike) -> TypeGuard[ModelLike]:
    return isinstance(reference, (str, os.PathLike, onnx.ModelProto, ir.Model))


def _runner(reference: Mirror | ModelLike) -> Run:
    """Returns a function that runs the reference on a batch."""
    if _is_model(reference):
        session = open_written(reference)
        return lambda batch: run_batch(session, batch)
    mirror: Mirror = reference  # type: ignore[assignment]
    return lambda batch: _run_mirror(mirror, batch)


def _plain_torch(reference: Mirror | ModelLike) -> AbstractContextManager[None]:
    """Keeps torch as it is elsewhere, if a mirror runs; a model needs no torch."""
    if _is_model(reference):
        return nullcontext()
    from onnx_cgmq.mirror.torch_state import plain_torch  # loads torch

    return plain_torch()


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
    return {
        name: without_padding(value.detach().cpu().numpy(), batch)
        for name, value in outputs.items()
    }
