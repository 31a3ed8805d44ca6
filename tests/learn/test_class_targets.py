"""Class indexes that an output has no class for are named; -100 does not count."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch.nn import functional as F  # noqa: N812

from onnx_cgmq import quantize
from onnx_cgmq.data.source import open_data
from onnx_cgmq.errors import DataError
from onnx_cgmq.learn.class_targets import check_class_targets
from onnx_cgmq.learn.losses import make_loss, target_loss
from onnx_cgmq.preparation.prepare import prepare

COUNT = 24


def segmentation(classes: int | str = 3) -> onnx.ModelProto:
    """A 1x1 convolution: 2 channels to 3 classes for each of 4x4 pixels."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(3, 2, 1, 1)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], "conv")],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 2, 4, 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", classes, 4, 4])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def data(**changes: int) -> dict[str, np.ndarray]:
    """Images and a class for each pixel; ``changes`` has the class of pixel (2, 3) in sample 17."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, (COUNT, 4, 4))
    y[17, 2, 3] = changes.get("pixel", 0)
    return {"x": rng.normal(size=(COUNT, 2, 4, 4)).astype(np.float32), "y": y}


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [3, -1, 255])
def test_a_class_that_the_output_does_not_have_is_named(wrong: int) -> None:
    told = rf"target values 'y': {wrong} in sample 17 \(at index \[2, 3\]\) is not .*0 to 2"
    with pytest.raises(DataError, match=told):
        quantize(segmentation(), data(pixel=wrong), "10%", epochs=1, validation_share=0.2)


def test_labels_are_checked_where_the_model_does_not_say_how_many_classes_it_has() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]>
        g (float[n, 4] x) => (float[n, c] y) <float[4, 3] w> { y = MatMul (x, w) }"""
    model = onnx.parser.parse_model(text)
    weight = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    del model.graph.initializer[:]
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    x, label = np.ones((COUNT, 4), np.float32), np.arange(COUNT) % 3
    label[5] = 3
    float_model = prepare(model)
    float_model.graph.outputs[0].shape = None
    samples = open_data({"x": x, "label": label}, float_model)
    with pytest.raises(DataError, match="label: 3 in sample 5 is not a class index"):
        check_class_targets(samples, {"y": torch.ones(2, 3)}, "y")


def test_values_and_other_targets_are_no_class_indexes() -> None:
    model = prepare(segmentation())
    for target in (np.full((COUNT, 3, 4, 4), 9), np.full((COUNT, 4, 4), 9.0, np.float32)):
        samples = open_data({**data(), "y": target}, model)
        check_class_targets(samples, {"y": torch.ones(1, 3, 4, 4)}, None)


def test_what_does_not_count_is_left_out_of_the_loss() -> None:
    value = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    target = torch.arange(20).reshape(4, 5) % 3
    target[1:, 2:] = -100
    kept = target != -100
    wanted = F.cross_entropy(value.movedim(1, -1)[kept], target[kept])
    torch.testing.assert_close(target_loss(value, target), wanted)
    teacher = value.clone()
    teacher[0, :, 0] = torch.nan
    kept[0, 0] = False
    wanted = F.cross_entropy(value.movedim(1, -1)[kept], target[kept])
    torch.testing.assert_close(target_loss(value, target, teacher), wanted)
    assert target_loss(value, torch.full_like(target, -100)) == 0


@pytest.mark.slow
def test_a_run_with_targets_that_do_not_count_is_complete() -> None:
    assert quantize(segmentation(), data(pixel=-100), "10%", epochs=1).complete


def test_class_indexes_of_another_shape_are_refused() -> None:
    loss = make_loss("labels", None, False, ["y"], ["y"])
    outputs = {"y": torch.ones(2, 3, 4, 4)}
    with pytest.raises(DataError, match=r"shape \[2, 5, 5\], their output \[2, 3, 4, 4\]"):
        loss(outputs, {"y": torch.zeros(2, 5, 5, dtype=torch.int64)}, outputs)
