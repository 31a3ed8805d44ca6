"""How good a written file is: its agreement with the float model, both in onnxruntime."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import onnx_ir as ir

from onnx_cgmq.api.agreement import Agreement, OutputAgreement, json_values, outputs_text
from onnx_cgmq.api.verification import decided_by_chance
from onnx_cgmq.data import Samples
from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.files.load import ModelLike
from onnx_cgmq.ort.batch_size import samples_at_once
from onnx_cgmq.ort.session import open_written, run_batch

_MOST_SAMPLES: Final = 512
"""So that it takes seconds, whatever the number of held-out samples."""

_BATCH_SIZE: Final = 8
"""Small, as the outputs of two models are in memory at once."""


@dataclass(frozen=True)
class FloatAgreement:
    """How a written file agrees with the float model on held-out samples, both in onnxruntime.

    Attributes:
        samples: Number of samples compared: at most 512, drawn from those held out.
        outputs: How each output compares, by name; empty if chance decides the outputs.
        class_output: The output with class scores: the first float output ``[samples, classes]``,
            or else the first with probabilities along its last axis; ``None`` without any.
        same_class: Share of classes that are the same in both; ``None`` without class scores, or if
            chance decides.
        classes_compared: Number of these: one for each sample, or one for each position.
        accuracy: Share of samples that the written file classifies right; ``None`` without labels
            or class scores.
        float_accuracy: Share of samples that the float model classifies right, likewise.
    """

    samples: int
    outputs: Mapping[str, OutputAgreement]
    class_output: str | None
    same_class: float | None
    classes_compared: int
    accuracy: float | None
    float_accuracy: float | None

    @property
    def text(self) -> str:
        """The agreement in words."""
        held_out = f"{self.samples:,} held-out samples"
        if not self.outputs:
            return f"can't be said for {held_out}: chance decides the outputs"
        parts = [outputs_text(self.outputs)]
        if self.same_class is not None:
            of_positions = self.classes_compared != self.samples
            where = f"{self.classes_compared:,} positions in " if of_positions else ""
            parts.append(f"same class for {self.same_class:.2%} of {where}{held_out}")
        else:
            parts[0] += f" for {held_out}"
        undefined = sum(output.undefined for output in self.outputs.values())
        if undefined:
            parts.append(
                f"without {undefined:,} values that are NaN or infinite in the float model"
            )
        return ", ".join(parts)

    def to_record(self) -> dict[str, Any]:
        """The fields as JSON values; numbers that are not finite become ``None``."""
        record: dict[str, Any] = json_values(asdict(self))
        return record


def float_agreement(
    float_models: Iterable[ModelLike], written: ir.Model, held_out: Samples
) -> FloatAgreement:
    """Compares a written file with its float model.

    Args:
        float_models: The float model as the user gave it, and as it was prepared. The first that
            onnxruntime runs is the one to compare with: it has no kernels for bfloat16, say.
        written: The written model.
        held_out: The held-out samples.

    Raises:
        ModelError: onnxruntime runs none of them, or not the written one.
    """
    samples = held_out.drawn(_MOST_SAMPLES)
    errors = []
    for model in float_models:
        try:
            agreement = _compare(model, written, samples)
        except ModelError as error:
            errors.append(error)
        else:
            return _figures(agreement, by_chance=decided_by_chance(written))
    raise errors[0]


def _compare(float_model: ModelLike, written: ir.Model, samples: Samples) -> Agreement:
    float_session, session = open_written(float_model), open_written(written)
    agreement = Agreement(sizes_may_differ=True)
    for batch in samples.batches(samples_at_once(written, _BATCH_SIZE)):
        agreement.add(run_batch(session, batch), run_batch(float_session, batch), batch)
    return agreement


def _figures(agreement: Agreement, *, by_chance: bool) -> FloatAgreement:
    return FloatAgreement(
        samples=agreement.samples,
        outputs={} if by_chance else agreement.outputs,
        class_output=agreement.class_output,
        same_class=None if by_chance else agreement.same_class,
        classes_compared=agreement.classified,
        accuracy=agreement.accuracy,
        float_accuracy=agreement.reference_accuracy,
    )
