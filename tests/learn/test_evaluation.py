"""Loss and accuracy on held-out data."""

from __future__ import annotations

import pytest

from onnx_cgmq.data.source import open_data
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.learn.evaluation import Evaluator
from onnx_cgmq.learn.losses import ClassOutput, make_loss
from onnx_cgmq.learn.teacher import Teacher
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.preparation.prepare import prepare
from onnx_cgmq.settings.config import Config
from tests.support.toys import mlp, toy_data


def _evaluator(held_out=None, batch="n", loss="auto") -> tuple[Evaluator, Mirror]:
    """An evaluator of 192 samples, or of others, and a mirror with all gates at 32 bits."""
    model = mlp(batch=batch)
    samples = open_data(toy_data(mlp()) if held_out is None else held_out, prepare(model))
    classes = ClassOutput("y", is_probability=False)
    teacher = Teacher(Mirror(prepare(model)), len(samples))
    measured = make_loss(loss, classes, samples.has_labels)
    mirror = Mirror(insert_gates(model, Config(target="generic")))
    return Evaluator(samples, teacher, measured, classes, batch_size=32), mirror


def test_a_mirror_at_32_bits_has_the_teachers_accuracy_and_no_loss() -> None:
    evaluator, mirror = _evaluator(loss="teacher")
    loss, accuracy = evaluator.evaluate(mirror)
    assert abs(loss) < 1e-5
    assert accuracy == evaluator.teacher_accuracy() == 1
    assert mirror.training


def test_padding_samples_do_not_count_in_loss_and_accuracy() -> None:
    """The last sample pads the last batch. Its label is wrong, so counting it twice would show."""
    held_out = {name: array[:12] for name, array in toy_data(mlp()).items()}
    held_out["label"] = held_out["label"].copy()
    held_out["label"][-1] = (held_out["label"][-1] + 1) % 3
    results = [
        (evaluator.evaluate(mirror), evaluator.teacher_accuracy())
        for evaluator, mirror in (_evaluator(held_out, batch) for batch in ("n", 8))
    ]
    (loss, accuracy), teacher_accuracy = results[0]
    assert accuracy == teacher_accuracy == pytest.approx(11 / 12)
    assert results[1][0] == pytest.approx((loss, accuracy))
    assert results[1][1] == teacher_accuracy


def test_without_labels_there_is_no_accuracy() -> None:
    evaluator, mirror = _evaluator({"x": toy_data(mlp())["x"]})
    assert evaluator.teacher_accuracy() is None
    assert evaluator.evaluate(mirror)[1] is None
