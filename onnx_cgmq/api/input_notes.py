"""Notes on data that do not seem to fit the model: found out before a run takes its time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.api.agreement import are_probabilities, class_scores
from onnx_cgmq.data import Batch, Samples
from onnx_cgmq.errors import ModelError
from onnx_cgmq.ort.session import Outputs, open_session, run_batch

_FEWEST_SAMPLES: Final = 50
"""With fewer samples chance alone may look like a fault."""

_MOST_SAMPLES: Final = 128
_BATCH_SIZE: Final = 8  # small, so that a run of a large model needs no more memory for this

_ABOVE_CHANCE: Final = 1 / 9
"""How far from chance to all samples right an accuracy may be and still count as near chance. It is
never more than twice chance. With ten classes this is twice chance, with two classes 55.6 %. Our
choice."""

_SAME_SCORES: Final = 1e-3
"""Variance of class scores over their mean square up to which they count as nearly the same: they
differ by three hundredths. Of probabilities the logarithms count: a good network may be sure of one
class for all samples, but it is not equally sure. Our choice."""

_LEAST_PROBABILITY: Final = 1e-30  # of which a logarithm is taken, so that it is finite

_SAME_VALUES: Final = 1e-12
"""The same for an output without classes, which may well vary little around a large value (a
pressure): what rounding in float32 makes of equal values."""


def input_notes(model: ir.Model, samples: Samples) -> list[str]:
    """Returns a sentence for each sign that labels or preprocessing don't fit the float model.

    At most 128 samples are run. There are no notes with fewer than 50, or if onnxruntime does not
    run the model.

    Args:
        model: The prepared float model.
        samples: All samples of the run.
    """
    drawn = samples.drawn(_MOST_SAMPLES)
    if len(drawn) < _FEWEST_SAMPLES:
        return []
    seen = _Seen()
    try:
        session = open_session(model)
        for batch in drawn.batches(_BATCH_SIZE):
            seen.add(run_batch(session, batch), batch, samples.unbatched)
    except ModelError:  # the mirror may run it nevertheless
        return []
    return list(_notes(seen, drawn.labels))


def _notes(seen: _Seen, labels: npt.NDArray[np.int64] | None) -> Iterator[str]:
    one_class = labels is not None and len(set(labels.tolist())) == 1
    if seen.inputs_differ and not one_class and seen.nearly_constant:
        yield (
            f"the float model gives nearly the same output for all of {seen.samples} samples, "
            "though they differ: is their preprocessing the one that the model was trained with?"
        )
    if seen.labelled >= _FEWEST_SAMPLES:
        chance, accuracy = 1 / seen.classes, seen.correct / seen.labelled
        if accuracy <= min(2 * chance, chance + _ABOVE_CHANCE * (1 - chance)):
            yield (
                f"the float model classifies only {accuracy:.1%} of {seen.labelled} samples right, "
                f"near what chance gives for {seen.classes} classes: labels or preprocessing don't "
                "fit the model"
            )


@dataclass
class _Spread:
    """How one output varies across samples.

    Attributes:
        first: The output for the first sample.
        samples: Number of samples.
        one_shape: Whether the output has the same shape for all samples.
        same_class: Whether the largest scores are at the same place for all samples.
        moved: Sum of the differences to ``first``, for each value.
        moved_squares: Sum of their squares.
        squares: Sum of all squared values.
    """

    first: npt.NDArray[np.float64]
    samples: int = 0
    one_shape: bool = True
    same_class: bool = True
    moved: Any = 0.0
    moved_squares: Any = 0.0
    squares: float = 0.0

    def add(self, values: npt.NDArray[np.float64]) -> None:
        """Adds the output for one sample."""
        if values.shape != self.first.shape:
            self.one_shape = False
            return
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is not constant
            moved = values - self.first
            self.moved = self.moved + moved
            self.moved_squares = self.moved_squares + moved**2
            self.squares += float((values**2).sum())
        self.samples += 1
        if values.ndim:
            self.same_class &= bool((values.argmax(-1) == self.first.argmax(-1)).all())

    def is_at_most(self, share: float) -> bool:
        """Whether the variance across samples is at most this share of the mean square."""
        if not self.one_shape:
            return False
        with np.errstate(invalid="ignore", over="ignore"):
            mean = self.moved / self.samples
            variance = float((self.moved_squares / self.samples - mean**2).sum())
        return variance <= share * self.squares / self.samples


class _Seen:
    """What the outputs for all samples show.

    Attributes:
        samples: Number of samples.
        inputs_differ: Whether not all samples are the same.
        labelled: Number of samples with class scores and a label.
        classes: Number of classes.
        correct: Number of samples classified right.
    """

    def __init__(self) -> None:
        self.samples = self.labelled = self.classes = self.correct = 0
        self.inputs_differ = False
        self._first: dict[str, npt.NDArray[Any]] = {}
        self._spreads: dict[str, _Spread] = {}
        self._scores: str | None = None
        self._take_logarithm = False

    @property
    def nearly_constant(self) -> bool:
        """Whether all outputs are nearly the same for all samples, and the classes the same."""
        return bool(self._spreads) and all(
            spread.same_class and spread.is_at_most(_SAME_SCORES)
            if name == self._scores
            else spread.is_at_most(_SAME_VALUES)
            for name, spread in self._spreads.items()
        )

    def add(self, outputs: Outputs, batch: Batch, unbatched: frozenset[str]) -> None:
        """Adds a batch and the float model's outputs for it."""
        self.samples += batch.size
        for name, array in batch.inputs.items():
            rows = array[None] if name in unbatched else array
            first = self._first.setdefault(name, rows[0])
            self.inputs_differ |= rows.shape[1:] != first.shape or bool((rows != first).any())
        if self._scores is None:
            self._scores = class_scores(outputs, batch.size)
            if self._scores is not None:
                self._take_logarithm = are_probabilities(outputs[self._scores])
        for name, array in outputs.items():
            if array.dtype.kind == "f" and array.size and len(array) == batch.size:
                for output in array:
                    self._add_output(name, output.astype(np.float64))
        if self._scores is not None and batch.labels is not None:
            self._add_labels(outputs[self._scores], batch.labels[: batch.size])

    def _add_output(self, name: str, values: npt.NDArray[np.float64]) -> None:
        if name == self._scores and self._take_logarithm:
            values = np.log(np.maximum(values, _LEAST_PROBABILITY))
        self._spreads.setdefault(name, _Spread(values)).add(values)

    def _add_labels(self, scores: npt.NDArray[Any], labels: npt.NDArray[np.int64]) -> None:
        if scores.ndim == 2 and len(scores) == len(labels):
            self.classes = scores.shape[1]
            self.labelled += len(labels)
            self.correct += int((scores.argmax(1) == labels).sum())
