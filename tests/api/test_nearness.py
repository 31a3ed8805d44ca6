import numpy as np
import pytest

from onnx_cgmq.api.nearness import as_near
from onnx_cgmq.data import open_data
from onnx_cgmq.graph.files.load import load_model
from tests.support.toys import mlp

VALUES = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
SAMPLES = open_data(VALUES, load_model(mlp()))


def run(step):
    """A model that rounds its input."""

    def outputs(batch):
        (values,) = batch.inputs.values()
        rounded = np.round(values / step) * step if step else values
        return {"y": rounded.astype(np.float32)}

    return outputs


@pytest.mark.parametrize(
    ("deployed", "others", "near"),
    [
        (0.5, [0.5], True),
        (0.1, [0.5], True),
        (0.5, [0.1], False),
        (0.5, [0.5, 0.1], False),
        (0.5, [0], False),
        (0.5, [], True),
    ],
)
def test_a_model_is_as_near_as_those_that_are_not_nearer(deployed, others, near) -> None:
    assert as_near(run(0), run(deployed), [run(step) for step in others], SAMPLES, 16) is near


def test_without_float_outputs_nothing_is_near() -> None:
    def classes(batch):
        (values,) = batch.inputs.values()
        return {"y": values.argmax(1)}

    assert not as_near(classes, classes, [classes], SAMPLES, 16)
