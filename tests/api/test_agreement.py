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
