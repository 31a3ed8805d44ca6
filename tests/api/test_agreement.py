"""How the outputs of two models agree, summed over batches."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_cgmq.api.agreement import Agreement
from onnx_cgmq.data import Batch
from onnx_cgmq.errors import ModelError


def _batch(labels=None, size=3) -> Batch:
    labels = None if labels is None else np.asarray(labels)
    return Batch({}, labels, np.arange(size), size)


def test_agreement_adds_up_classes_and_differences_over_batches() -> None:
    agreement = Agreement()
    a = {"y": np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]], np.float32)}
    b = {"y": np.array([[0.0, 1.0], [1.0, 0.0], [0.5, 2.0]], np.float32)}
    agreement.add(a, b, _batch([1, 1, 1]))
    agreement.add(b, b, _batch([1, 1, 1]))
    assert agreement.share(agreement.agreeing) == pytest.approx(5 / 6)
    assert agreement.share(agreement.correct) == pytest.approx(3 / 6)
    assert agreement.share(agreement.reference_correct) == pytest.approx(4 / 6)
    assert agreement.largest == 2.0
    assert agreement.mean == pytest.approx(2.5 / 12)


def test_equal_infinities_do_not_differ() -> None:
    agreement = Agreement()
    y = {"y": np.array([-np.inf, 1.0], np.float32)}
    agreement.add(y, y, _batch(size=2))
    assert agreement.largest == agreement.mean == 0
    assert agreement.share(agreement.agreeing) is None


@pytest.mark.parametrize("other", [{"z": np.zeros(3)}, {"y": np.zeros((3, 2))}])
def test_models_with_other_outputs_or_shapes_are_refused(other) -> None:
    with pytest.raises(ModelError, match="output"):
        Agreement().add({"y": np.zeros(3)}, other, _batch())


def test_another_number_of_boxes_is_an_infinite_difference() -> None:
    agreement = Agreement()
    boxes = np.zeros((7, 4), np.float32)
    agreement.add({"y": boxes}, {"y": boxes[:5]}, _batch(size=2))
    assert agreement.largest == np.inf
    assert agreement.share(agreement.agreeing) is None


def test_decibels_are_those_of_a_sample_in_the_middle() -> None:
    """One sample of five is far off, as after a flipped code early in a network."""
    agreement = Agreement()
    wanted = np.random.default_rng(0).normal(size=(5, 100)).astype(np.float32)
    found = wanted + np.float32(0.01)
    found[0] += 5
    agreement.add({"y": found}, {"y": wanted}, _batch(size=5))
    assert agreement.decibels == pytest.approx(40, abs=1)


def test_decibels_of_equal_outputs_are_infinite() -> None:
    agreement = Agreement()
    y = {"y": np.ones((3, 2), np.float32), "index": np.zeros((3, 2), np.int64)}
    agreement.add(y, y, _batch())
    assert agreement.decibels == np.inf


def test_decibels_of_nan_are_as_low_as_can_be() -> None:
    agreement = Agreement()
    wanted = np.arange(6, dtype=np.float32).reshape(3, 2)
    agreement.add({"y": wanted * np.nan}, {"y": wanted}, _batch())
    assert agreement.decibels == -np.inf


def test_without_float_outputs_there_are_no_decibels() -> None:
    agreement = Agreement()
    y = {"y": np.zeros((3, 2), np.int64)}
    agreement.add(y, y, _batch())
    assert agreement.decibels is None
