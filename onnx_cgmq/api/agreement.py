"""Measures how closely two models agree on the same samples."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_cgmq.data import Batch
from onnx_cgmq.errors import ModelError
from onnx_cgmq.ort.session import Outputs


@dataclass
class Agreement:
    """How the outputs of a deployed model and its reference compare, summed over batches.

    Attributes:
        samples: Number of samples compared.
        classified: Number of samples for which an output has class scores.
        agreeing: Number of samples that have the same class in both models.
        correct: Number of samples that the deployed model classifies right.
        reference_correct: Number of samples that the reference classifies right.
        largest: The largest absolute difference of two values. It is infinite if an output has
            more rows in one model than in the other, as when they find different numbers of boxes.
        total: The sum of all absolute differences.
        values: Number of values compared.
    """

    samples: int = 0
    classified: int = 0
    agreeing: int = 0
    correct: int = 0
    reference_correct: int = 0
    largest: float = 0.0
    total: float = 0.0
    values: int = 0
    _squares: dict[str, list[npt.NDArray[np.float64]]] = field(default_factory=dict)
    _moments: dict[str, tuple[float, float, int]] = field(default_factory=dict)

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
            if array.ndim != other.ndim or array.shape[1:] != other.shape[1:]:
                raise ModelError(
                    f"output {name!r} has shape {list(array.shape)} in the deployed model and "
                    f"{list(other.shape)} in the reference; give the model that the deployed one "
                    "was made from"
                )
            if array.shape == other.shape:
                self._add_difference(array, other)
                if array.dtype.kind == "f":
                    self._add_noise(name, array, other, batch.size)
            else:
                self.largest = math.inf
        self.samples += batch.size
        scores = _class_output(deployed, batch.size)
        if scores is not None:
            self._add_classes(deployed[scores].argmax(1), reference[scores].argmax(1), batch)

    @property
    def mean(self) -> float:
        """The mean absolute difference of values."""
        return self.total / max(1, self.values)

    @property
    def decibels(self) -> float | None:
        """How far the outputs stand above their differences, for a sample in the middle.

        For each sample: the mean squared difference of its outputs, over their variance in the
        reference. The median over the samples as a signal-to-noise ratio, in dB: a code that flips
        here and there does not count, what happens to most samples does. Infinite where they are
        equal; ``None`` without float outputs of one size.
        """
        total: npt.NDArray[np.float64] | None = None
        for name, squares in self._squares.items():
            first, second, count = self._moments[name]
            variance = max(second / count - (first / count) ** 2, 1e-12 * second / count, 1e-30)
            noise = np.concatenate(squares) / variance
            total = noise if total is None or len(total) != len(noise) else total + noise
        if total is None or not total.size:
            return None
        noise_of_most = float(np.median(total))
        if noise_of_most == 0 or math.isinf(noise_of_most):
            return math.inf if noise_of_most == 0 else -math.inf
        return -10 * math.log10(noise_of_most)

    def share(self, count: int) -> float | None:
        """Returns ``count`` as a share of the samples with class scores, ``None`` without any."""
        return count / self.classified if self.classified else None

    def _add_difference(self, array: npt.NDArray[Any], other: npt.NDArray[Any]) -> None:
        with np.errstate(invalid="ignore"):
            difference = np.abs(array.astype(np.float64) - other.astype(np.float64))
        # Equal infinities (of masked scores) do not differ, but their difference is NaN.
        difference = np.where(array == other, 0.0, difference)
        if difference.size:
            self.largest = float(np.maximum(self.largest, difference.max()))
        self.total += float(difference.sum())
        self.values += difference.size

    def _add_noise(
        self, name: str, array: npt.NDArray[Any], other: npt.NDArray[Any], samples: int
    ) -> None:
        rows = samples if array.ndim and len(array) == samples else 1
        wanted = other.astype(np.float64).reshape(rows, -1)
        found = array.astype(np.float64).reshape(rows, -1)
        finite = np.isfinite(wanted)
        if not finite.any():
            return
        with np.errstate(invalid="ignore"):
            squares = np.where(finite, (found - wanted) ** 2, 0.0)
        squares = np.where(np.isnan(squares), np.inf, squares)  # the deployed model gave NaN
        self._squares.setdefault(name, []).append(squares.mean(axis=1))
        values = wanted[finite]
        first, second, count = self._moments.get(name, (0.0, 0.0, 0))
        self._moments[name] = (
            first + float(values.sum()),
            second + float((values**2).sum()),
            count + values.size,
        )

    def _add_classes(
        self, deployed: npt.NDArray[Any], reference: npt.NDArray[Any], batch: Batch
    ) -> None:
        self.classified += batch.size
        self.agreeing += int((deployed == reference).sum())
        if batch.labels is not None:
            labels = batch.labels[: batch.size]
            self.correct += int((deployed == labels).sum())
            self.reference_correct += int((reference == labels).sum())


def _numbers(outputs: Outputs) -> Outputs:
    """Leaves out outputs of strings, such as names of classes. The mirror does not have them."""
    return {name: array for name, array in outputs.items() if array.dtype.kind not in "OSU"}


def _class_output(outputs: Outputs, rows: int) -> str | None:
    """Returns the name of the first float output ``[rows, classes]``, as learning does."""
    for name, array in outputs.items():
        is_matrix = array.ndim == 2 and array.dtype.kind == "f"
        if is_matrix and len(array) == rows and array.shape[1] > 1:
            return name
    return None
