"""Measures how closely two models agree on the same samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from onnx_cgmq.data import Batch
from onnx_cgmq.errors import ModelError
from onnx_cgmq.ort.session import Outputs

_MOST_SHOWN: Final = 4  # outputs in a text

_LEAST_VARIANCE: Final = 1e-8
"""The smallest variance by which a difference is divided, as a share of the mean square: what
floats round off is no difference, even where outputs are nearly the same for all samples."""

_SUM_TOLERANCE: Final = 1e-3
"""How far a sum of probabilities may be from 1."""


@dataclass(frozen=True)
class OutputAgreement:
    """How an output of a deployed model compares with the same output of its reference.

    Attributes:
        snr_db: Signal-to-noise ratio in dB, over all samples: the sum of the reference's squared
            values over the sum of the squared differences. Infinite if there are no differences,
            minus infinity if the deployed model gives NaN or infinity in another place than the
            reference; ``None`` if the output holds no floats, or nothing can be compared.
        max_abs_difference: Largest absolute difference. Infinite if the two find different numbers
            of things, such as boxes, or as for ``snr_db``.
        values: Number of values compared.
        undefined: Number of values that are NaN or infinite in the reference. They are left out.
    """

    snr_db: float | None
    max_abs_difference: float
    values: int
    undefined: int

    @property
    def text(self) -> str:
        """The agreement in a few words."""
        if self.snr_db is not None:
            return "no difference" if self.snr_db == math.inf else f"{self.snr_db:.1f} dB"
        if math.isinf(self.max_abs_difference):
            return "not comparable"
        return f"differs by at most {self.max_abs_difference:.3g}" if self.values else "undefined"


@dataclass
class Agreement:
    """How the outputs of a deployed model and its reference compare, summed over batches.

    Attributes:
        sizes_may_differ: Whether an output may have another shape in one model than in the other.
            If not, only its number of rows may differ.
        samples: Number of samples compared.
        class_output: The output with class scores, if there is one (:func:`class_scores`).
        classified: Number of classes compared: one for each sample, or one for each position.
        agreeing: Number of these that are the same in both models.
        labelled: Number of samples with class scores and a label.
        correct: Number of samples that the deployed model classifies right.
        reference_correct: Number of samples that the reference classifies right.
        largest: The largest absolute difference of two values. It is infinite if an output has
            more rows in one model than in the other, as when they find different numbers of boxes.
        total: The sum of all absolute differences.
        values: Number of values compared.
    """

    sizes_may_differ: bool = False
    samples: int = 0
    class_output: str | None = None
    classified: int = 0
    agreeing: int = 0
    labelled: int = 0
    correct: int = 0
    reference_correct: int = 0
    largest: float = 0.0
    total: float = 0.0
    values: int = 0
    _sums: dict[str, _Sums] = field(default_factory=dict)

    def add(self, deployed: Outputs, reference: Outputs, batch: Batch) -> None:
        """Adds the outputs of both models for a batch; those of strings are not compared.

        Args:
            deployed: Outputs of the deployed model by name.
            reference: Outputs of the reference by name.
            batch: The batch, with its labels if there are any.

        Raises:
            ModelError: The models have different outputs, or outputs of different shapes.
        """
        deployed, reference = _numbers(deployed), _numbers(reference)
        if deployed.keys() != reference.keys():
            raise ModelError(
                f"the models have different outputs: {sorted(deployed)} and {sorted(reference)}; "
                "give the model that the deployed one was made from"
            )
        for name, array in deployed.items():
            other = reference[name]
            shapes_fit = array.ndim == other.ndim and array.shape[1:] == other.shape[1:]
            if not shapes_fit and not self.sizes_may_differ:
                raise ModelError(
                    f"output {name!r} has shape {list(array.shape)} in the deployed model and "
                    f"{list(other.shape)} in the reference; give the model that the deployed one "
                    "was made from"
                )
            sums = self._sums.setdefault(name, _Sums(is_float=other.dtype.kind == "f"))
            if array.shape == other.shape:
                self._add_difference(array, other)
                sums.add(array, other, batch.size)
            else:
                self.largest = sums.largest = math.inf
                sums.alike = False
        self.samples += batch.size
        scores = class_scores(reference, batch.size)
        if scores is not None and deployed[scores].shape == reference[scores].shape:
            self.class_output = scores
            self._add_classes(deployed[scores], reference[scores], batch)

    @property
    def mean(self) -> float:
        """The mean absolute difference of values."""
        return self.total / max(1, self.values)

    @property
    def outputs(self) -> dict[str, OutputAgreement]:
        """How each output compares, by name."""
        return {name: sums.agreement for name, sums in self._sums.items()}

    @property
    def decibels(self) -> float | None:
        """How far the outputs stand above their differences, for a sample in the middle.

        For each sample: the mean squared difference of its outputs, over their variance in the
        reference. The median over the samples as a signal-to-noise ratio, in dB: a code that flips
        here and there does not count, what happens to most samples does. Infinite where they are
        equal; ``None`` without float outputs of one size.
        """
        total: npt.NDArray[np.float64] | None = None
        for sums in self._sums.values():
            if not sums.is_float or not sums.values:
                continue
            noise = sums.noise_of_samples()
            total = noise if total is None or len(total) != len(noise) else total + noise
        if total is None or not total.size:
            return None
        noise_of_most = float(np.median(total))
        if noise_of_most == 0 or math.isinf(noise_of_most):
            return math.inf if noise_of_most == 0 else -math.inf
        return -10 * math.log10(noise_of_most)

    @property
    def same_class(self) -> float | None:
        """Share of samples, or positions, with the same class; ``None`` without class scores."""
        return self.agreeing / self.classified if self.classified else None

    @property
    def accuracy(self) -> float | None:
        """Share of samples that the deployed model classifies right, ``None`` without labels."""
        return self.correct / self.labelled if self.labelled else None

    @property
    def reference_accuracy(self) -> float | None:
        """Share of samples that the reference classifies right, likewise."""
        return self.reference_correct / self.labelled if self.labelled else None

    def _add_difference(self, array: npt.NDArray[Any], other: npt.NDArray[Any]) -> None:
        with np.errstate(invalid="ignore"):
            difference = np.abs(array.astype(np.float64) - other.astype(np.float64))
        # Equal infinities (of masked scores) do not differ, but their difference is NaN.
        difference = np.where(array == other, 0.0, difference)
        if difference.size:
            self.largest = float(np.maximum(self.largest, difference.max()))
        self.total += float(difference.sum())
        self.values += difference.size

    def _add_classes(
        self, deployed: npt.NDArray[Any], reference: npt.NDArray[Any], batch: Batch
    ) -> None:
        found, wanted = deployed.argmax(-1), reference.argmax(-1)
        self.classified += wanted.size
        self.agreeing += int((found == wanted).sum())
        if batch.labels is not None and wanted.ndim == 1:
            labels = batch.labels[: batch.size]
            self.labelled += batch.size
            self.correct += int((found == labels).sum())
            self.reference_correct += int((wanted == labels).sum())


@dataclass
class _Sums:
    """What is summed up of one output.

    Attributes:
        is_float: Whether the reference gives floats.
        alike: Whether the output had the same shape in both models, in all batches.
        values: Number of values that are finite in the reference; the others are left out.
        undefined: Number of these others.
        first: Sum of the reference's values.
        second: Sum of their squares.
        noise: Sum of the squared differences.
        largest: The largest absolute difference.
    """

    is_float: bool
    alike: bool = True
    values: int = 0
    undefined: int = 0
    first: float = 0.0
    second: float = 0.0
    noise: float = 0.0
    largest: float = 0.0
    _noise_of_samples: list[npt.NDArray[np.float64]] = field(default_factory=list)

    def add(self, array: npt.NDArray[Any], other: npt.NDArray[Any], samples: int) -> None:
        """Adds what the deployed model and the reference give for a batch."""
        rows = samples if array.ndim and len(array) == samples else 1
        wanted = other.astype(np.float64).reshape(rows, -1)
        found = array.astype(np.float64).reshape(rows, -1)
        finite = np.isfinite(wanted)
        values = wanted[finite]
        self.undefined += wanted.size - values.size
        if not values.size:
            return
        with np.errstate(invalid="ignore"):
            squares = np.where(finite, (found - wanted) ** 2, 0.0)
        squares = np.where(np.isnan(squares), np.inf, squares)  # the deployed model gave NaN
        self._noise_of_samples.append(squares.mean(axis=1))
        self.values += values.size
        self.first += float(values.sum())
        self.second += float((values**2).sum())
        self.noise += float(squares.sum())
        self.largest = max(self.largest, math.sqrt(squares.max()))

    @property
    def agreement(self) -> OutputAgreement:
        """The figures of this output."""
        decibels = None
        if self.is_float and self.alike and self.values:
            decibels = _decibels(self.second, self.noise)
        return OutputAgreement(decibels, self.largest, self.values, self.undefined)

    def noise_of_samples(self) -> npt.NDArray[np.float64]:
        """The mean squared difference for each sample, over the variance in the reference.

        A single value has no variance; there it is relative to the value.
        """
        mean_square = self.second / self.values
        variance = mean_square - (self.first / self.values) ** 2 * (self.values > 1)
        variance = max(variance, _LEAST_VARIANCE * mean_square, 1e-30)
        return np.concatenate(self._noise_of_samples) / variance


def _numbers(outputs: Outputs) -> Outputs:
    """Leaves out outputs of strings, such as names of classes. The mirror does not have them."""
    return {name: array for name, array in outputs.items() if array.dtype.kind not in "OSU"}


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal and math.isfinite(noise) else -math.inf


def class_scores(outputs: Outputs, rows: int) -> str | None:
    """Returns the name of the output with class scores, as learning chooses it.

    It is the first float output ``[rows, classes]``. Without one it is the first that has
    probabilities along its last axis: text recognition has a class for each position.
    """
    floats = {name: array for name, array in outputs.items() if array.dtype.kind == "f"}
    for name, array in floats.items():
        if array.ndim == 2 and len(array) == rows and array.shape[1] > 1:
            return name
    return next((n for n, a in floats.items() if a.ndim > 2 and are_probabilities(a)), None)


def are_probabilities(array: npt.NDArray[Any]) -> bool:
    """Whether values are probabilities along their last axis, as after a Softmax."""
    if array.shape[-1] < 2 or not array.size or array.min() < 0:
        return False
    sums = array.sum(axis=-1, dtype=np.float64)
    return bool((np.abs(sums - 1) <= _SUM_TOLERANCE).all())


def outputs_text(outputs: Mapping[str, OutputAgreement]) -> str:
    """Returns the agreement of each output in words, the lowest first; of many only a few."""
    ordered = sorted(outputs.items(), key=lambda item: _order(item[1]))
    shown = [f"{output.text} ({name})" for name, output in ordered[:_MOST_SHOWN]]
    if len(ordered) > len(shown):
        shown.append(f"and {len(ordered) - len(shown)} more")
    return ", ".join(shown)


def _order(output: OutputAgreement) -> tuple[bool, float]:
    return output.snr_db is None, math.inf if output.snr_db is None else output.snr_db


def json_values(value: Any) -> Any:
    """Returns a value with ``None`` for numbers that are not finite, which JSON lacks."""
    if isinstance(value, Mapping):
        return {name: json_values(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
