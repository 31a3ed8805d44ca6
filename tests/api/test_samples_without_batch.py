"""Models whose inputs have no batch axis, or not as axis 0: a sample is one whole array."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_cgmq.api.pipeline import quantize
from onnx_cgmq.data.batch_axis import unbatched_inputs
from onnx_cgmq.data.source import open_data
from onnx_cgmq.errors import DataError
from onnx_cgmq.ort.sizes import Sizes
from onnx_cgmq.preparation.prepare import prepare

RNG = np.random.default_rng(0)


def build(nodes, inputs, outputs, **constants) -> onnx.ModelProto:
    made = [helper.make_node(op, i, o, name=o[0], **a) for op, i, o, a in nodes]
    graph = helper.make_graph(
        made,
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        [numpy_helper.from_array(np.asarray(c), n) for n, c in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def normal(*shape):
    return RNG.normal(0, 0.5, shape).astype(np.float32)


def picture() -> onnx.ModelProto:
    """One image of three colours, without a batch axis."""
    nodes = [
        ("Unsqueeze", ["image", "first"], ["x"], {}),
        ("Conv", ["x", "w"], ["c"], {}),
        ("Relu", ["c"], ["r"], {}),
        ("GlobalAveragePool", ["r"], ["p"], {}),
        ("Flatten", ["p"], ["f"], {}),
        ("Gemm", ["f", "v"], ["y"], {}),
    ]
    return build(
        nodes,
        {"image": [3, 6, 6]},
        {"y": [1, 2]},
        first=np.array([0]),
        w=normal(4, 3, 3, 3),
        v=normal(4, 2),
    )


def timed(batch=1) -> onnx.ModelProto:
    """A recurrent network that reads time first, and its state."""
    nodes = [
        ("GRU", ["x", "w", "r", "", "", "h0"], ["", "h"], {"hidden_size": 3}),
        ("Squeeze", ["h", "first"], ["s"], {}),
        ("Gemm", ["s", "v"], ["y"], {}),
    ]
    return build(
        nodes,
        {"x": ["time", batch, 2], "h0": [1, batch, 3]},
        {"y": [batch, 2]},
        first=np.array([0]),
        w=normal(1, 9, 2),
        r=normal(1, 9, 3),
        v=normal(3, 2),
    )


def scaled() -> onnx.ModelProto:
    """A batch of rows, and a number for all of them."""
    nodes = [("MatMul", ["x", "w"], ["h"], {}), ("Mul", ["h", "t"], ["y"], {})]
    return build(nodes, {"x": ["n", 4], "t": []}, {"y": ["n", 3]}, w=normal(4, 3))


def several() -> onnx.ModelProto:
    """Two inputs that fix different sizes on axis 0."""
    nodes = [("MatMul", ["a", "w"], ["h"], {}), ("MatMul", ["h", "b"], ["y"], {})]
    return build(nodes, {"a": [2, 4], "b": [3, 5]}, {"y": [2, 5]}, w=normal(4, 3))


def two_states(batch: str | None = "n") -> onnx.ModelProto:
    """A recurrent step in a branch, whose two states have the batch on axis 1."""
    nodes = [
        ("Gather", ["state", "zero"], ["h"], {"axis": 0}),
        ("Gather", ["state", "one"], ["c"], {"axis": 0}),
        ("Concat", ["x", "h"], ["joint"], {"axis": 1}),
        ("Gemm", ["joint", "w"], ["g"], {}),
        ("Add", ["g", "c"], ["y"], {}),
    ]
    inputs, outputs = {"x": [batch, 4], "state": [2, batch, 3]}, {"y": [batch, 3]}
    return build(nodes, inputs, outputs, zero=np.array(0), one=np.array(1), w=normal(7, 3))


def test_which_inputs_have_no_batch_axis() -> None:
    assert unbatched_inputs(prepare(picture())) == {"image"}
    assert (
        unbatched_inputs(prepare(timed())) == unbatched_inputs(prepare(timed("n"))) == {"x", "h0"}
    )
    assert unbatched_inputs(prepare(scaled())) == {"t"}
    assert unbatched_inputs(prepare(several())) == {"a", "b"}
    for batch in ("n", None):
        assert unbatched_inputs(prepare(two_states(batch))) == {"x", "state"}
    images = build(
        [("Conv", ["x", "w"], ["y"], {})], {"x": [3, 3, 4, 4]}, {"y": None}, w=normal(2, 3, 1, 1)
    )
    assert not unbatched_inputs(prepare(images))
    assert Sizes(prepare(images)).samples == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "data", "macs"),
    [
        (picture, {"image": normal(24, 3, 6, 6)}, 16 * 4 * 27 + 8),
        (timed, {"x": normal(24, 5, 1, 2), "h0": normal(24, 1, 1, 3)}, 5 * (9 * 2 + 9 * 3) + 6),
        (scaled, {"x": normal(24, 4), "t": normal(24)}, 12),
        (two_states, {"x": normal(24, 1, 4), "state": normal(24, 2, 1, 3)}, 21),
        (scaled, {"x": normal(24, 4), "t": np.float32(2)}, 12),
        (several, {"a": normal(24, 2, 4), "b": normal(24, 3, 5)}, 2 * 4 * 3 + 2 * 3 * 5),
    ],
)
def test_they_are_quantized_one_sample_at_a_time(model, data, macs) -> None:
    result = quantize(model(), data, "70%", epochs=1)
    assert result.report.macs == result.cost.macs == macs
    assert result.check.samples == 2
    assert result.check.max_abs_difference < 1e-3


def test_samples_in_files_and_items(tmp_path) -> None:
    images, model = normal(4, 3, 6, 6), prepare(picture())
    for number, image in enumerate(images):
        np.savez(tmp_path / f"{number}.npz", image=image)
    for data in (tmp_path, {"image": images}, [{"image": image} for image in images], images):
        samples = open_data(data, model)
        assert len(samples) == samples.batch_count(16) == 4
        found = [batch.inputs["image"] for batch in samples.batches(16)]
        np.testing.assert_array_equal(found, images)
    assert len(open_data({"image": images[0]}, model)) == 1
    with pytest.raises(DataError, match="no batch axis, so a sample is one whole array"):
        open_data({"image": normal(12, 6, 6)}, model)
