"""How the outputs of two models agree, summed over batches."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from onnx_cgmq.api.agreement import Agreement, OutputAgreement, json_values, outputs_text
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
    assert agreement.same_class == pytest.approx(5 / 6)
    assert agreement.accuracy == pytest.approx(3 / 6)
    assert agreement.reference_accuracy == pytest.approx(4 / 6)
    assert agreement.largest == 2.0
    assert agreement.mean == pytest.approx(2.5 / 12)


def test_equal_infinities_do_not_differ() -> None:
    agreement = Agreement()
    y = {"y": np.array([-np.inf, 1.0], np.float32)}
    agreement.add(y, y, _batch(size=2))
    assert agreement.largest == agreement.mean == 0
    assert agreement.same_class is None


@pytest.mark.parametrize("other", [{"z": np.zeros(3)}, {"y": np.zeros((3, 2))}])
def test_models_with_other_outputs_or_shapes_are_refused(other) -> None:
    with pytest.raises(ModelError, match="output"):
        Agreement().add({"y": np.zeros(3)}, other, _batch())


def test_another_number_of_boxes_is_an_infinite_difference() -> None:
    agreement = Agreement()
    boxes = np.zeros((7, 4), np.float32)
    agreement.add({"y": boxes}, {"y": boxes[:5]}, _batch(size=2))
    assert agreement.largest == np.inf
    assert agreement.same_class is None


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


@pytest.mark.parametrize("wanted", [[[0.3]], [[0.3], [0.3], [0.3]], [[0.3], [0.3000001]]])
def test_rounding_is_no_difference_where_outputs_do_not_vary(wanted) -> None:
    reference, agreement = np.array(wanted, np.float32), Agreement()
    agreement.add(
        {"y": reference * np.float32(1.0000002)}, {"y": reference}, _batch(size=len(wanted))
    )
    assert agreement.decibels > 40
    agreement = Agreement()
    agreement.add({"y": reference * 1.5}, {"y": reference}, _batch(size=len(wanted)))
    assert agreement.decibels < 20


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


def _compared(found, wanted, **settings):
    agreement = Agreement(**settings)
    agreement.add({"y": np.asarray(found)}, {"y": np.asarray(wanted)}, _batch(size=len(wanted)))
    return agreement.outputs["y"]


def test_signal_to_noise_is_that_of_all_samples_of_an_output() -> None:
    agreement = Agreement()
    wanted = np.random.default_rng(0).normal(size=(6, 50)).astype(np.float32)
    noise = np.random.default_rng(1).normal(0, 0.1, size=(6, 50)).astype(np.float32)
    noise[5] *= 30  # counts here, though not in the figure for a sample in the middle
    found = wanted + noise
    for rows in (slice(0, 3), slice(3, 6)):
        agreement.add(
            {"y": found[rows], "same": wanted[rows]},
            {"y": wanted[rows], "same": wanted[rows]},
            _batch(),
        )
    error = found.astype(np.float64) - wanted
    expected = 10 * math.log10((wanted.astype(np.float64) ** 2).sum() / (error**2).sum())
    output = agreement.outputs["y"]
    assert output.snr_db == pytest.approx(expected, abs=1e-6)
    assert expected < 10 < agreement.decibels
    assert output.max_abs_difference == pytest.approx(np.abs(error).max(), rel=1e-6)
    assert (output.values, output.undefined) == (300, 0)
    assert agreement.outputs["same"].snr_db == math.inf


def test_values_that_the_reference_does_not_define_are_left_out() -> None:
    wanted = np.array([[-np.inf, 3.0], [np.nan, 4.0]], np.float32)
    output = _compared(np.array([[7.0, 3.0], [7.0, 4.5]], np.float32), wanted)
    assert output.snr_db == pytest.approx(10 * math.log10(25 / 0.25))
    assert output.max_abs_difference == 0.5
    assert (output.values, output.undefined) == (2, 2)
    assert _compared(wanted, wanted * np.nan).snr_db is None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_deployed_model_that_gives_no_number_is_as_far_off_as_can_be(bad) -> None:
    output = _compared(np.array([[bad, 1.0]], np.float32), np.array([[1.0, 1.0]], np.float32))
    assert output.snr_db == -math.inf
    assert output.max_abs_difference == math.inf


def test_integers_have_a_difference_but_no_signal_to_noise() -> None:
    assert _compared([3, 5], [3, 9]) == OutputAgreement(None, 4.0, 2, 0)


def test_outputs_whose_size_the_data_decide_are_not_compared() -> None:
    boxes = np.ones((1, 7, 4), np.float32)
    output = _compared(boxes[:, :5], boxes, sizes_may_differ=True)
    assert output.snr_db is None
    assert output.max_abs_difference == math.inf
    assert output.text == "not comparable"


def test_probabilities_of_positions_have_classes() -> None:
    """As in text recognition: ``[samples, positions, classes]``."""
    wanted = np.array([[[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]]], np.float32)
    agreement = Agreement()
    agreement.add({"y": wanted[:, :, ::-1]}, {"y": wanted}, _batch([1], size=1))
    agreement.add({"y": wanted}, {"y": wanted}, _batch([1], size=1))
    assert (agreement.class_output, agreement.classified) == ("y", 6)
    assert agreement.same_class == 0.5
    assert agreement.accuracy is None  # labels are classes of samples
    agreement = Agreement()
    agreement.add({"y": wanted}, {"y": 2 * wanted}, _batch(size=1))
    assert agreement.same_class is None


def test_agreement_in_words_begins_with_the_lowest() -> None:
    outputs = {f"y{db}": OutputAgreement(db, 0.1, 9, 0) for db in (50.0, 31.24, 60.0, 45.0)}
    text = outputs_text({"ids": OutputAgreement(None, 2.0, 9, 0), **outputs})
    assert text == (
        "31.2 dB (y31.24), 45.0 dB (y45.0), 50.0 dB (y50.0), 60.0 dB (y60.0), and 1 more"
    )
    assert outputs_text({"y": OutputAgreement(math.inf, 0, 9, 0)}) == "no difference (y)"
    assert outputs_text({"ids": OutputAgreement(None, 2.0, 9, 0)}) == "differs by at most 2 (ids)"


def test_json_has_no_numbers_that_are_not_finite() -> None:
    values = {"a": math.inf, "b": {"c": math.nan, "d": 1.5}, "e": ("note",), "f": None}
    written = json.loads(json.dumps(json_values(values), allow_nan=False))
    assert written == {"a": None, "b": {"c": None, "d": 1.5}, "e": ["note"], "f": None}
