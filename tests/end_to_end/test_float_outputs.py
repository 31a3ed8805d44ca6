"""Carried quantizers cost no accuracy: neither behind the last Conv, nor in front of a clamp."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
import torch
from onnx import numpy_helper

from onnx_cgmq.contract.bits import INTEGER_KERNEL_BITS
from onnx_cgmq.data.source import open_data
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.gating.predicted_kernels import Kernel
from onnx_cgmq.inspection import inspect
from onnx_cgmq.learn.calibrate import calibrate
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.ort.session import open_session
from onnx_cgmq.preparation.prepare import prepare
from onnx_cgmq.writing.write_back import write_back

TAGGER = """<ir_version: 10, opset_import: ["": 21]>
g (float[n, 8, 1, 12] x) => (float[n, 8, 10] y)
<int64[1] height = {2}> {
    h = Conv<pads=[0,1,0,1]>(x, w0, b0)
    s = Squeeze(h, height)
    r = Relu(s)
    [head] logits = Conv(r, w1, b1)
    y = Softmax<axis=1>(logits)
}"""


def _tagger() -> onnx.ModelProto:
    """Tags 10 positions with 8 classes.

    One class never comes: its logits are far below all others. One channel is dead: Relu makes 0 of
    values far below 0.
    """
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(TAGGER)
    arrays = {
        "w0": rng.normal(0, 0.3, (16, 8, 1, 3)),
        "b0": np.array([-130.0, *[0.0] * 15]),
        "w1": rng.normal(0, 0.2, (8, 16, 3)),
        "b1": np.array([-130.0, *[0.0] * 7]),
    }
    for name, array in arrays.items():
        model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    return onnx.shape_inference.infer_shapes(model)


def _data() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).normal(size=(64, 8, 1, 12)).astype(np.float32)}


def _at_8_bits(model: onnx.ModelProto, integer_kernels: bool = True) -> tuple[Mirror, ir.Model]:
    """The calibrated mirror, and the file that is made of it."""
    gated = insert_gates(model, widths=(INTEGER_KERNEL_BITS,), integer_kernels=integer_kernels)
    mirror = Mirror(gated)
    calibrate(mirror, open_data(_data(), prepare(model)))
    return mirror, write_back(gated, mirror.plan())


def _run(model: onnx.ModelProto | ir.Model, optimize: bool = True) -> np.ndarray:
    return open_session(model, optimize=optimize).run(["y"], _data())[0]


def test_logits_in_front_of_softmax_are_float() -> None:
    _, written = _at_8_bits(_tagger())
    (softmax,) = (node for node in written.graph if node.op_type == "Softmax")
    logits = softmax.inputs[0]
    assert logits.producer().op_type == "Conv"
    report = inspect(written, kernels=True)
    kernels = {node.name: node.kernel for node in report.nodes}
    assert kernels.pop("head") is Kernel.FLOAT
    assert set(kernels.values()) == {Kernel.INTEGER}
    assert "logits" not in report.tensors
    # The weight of the float Conv is stored as codes too: one byte for each.
    assert report.tensors["w1"].stored_bytes == 8 * 16 * 3


def test_integer_kernels_cost_the_classes_no_accuracy() -> None:
    model = _tagger()
    wanted = _run(model).argmax(axis=1)
    share = {
        kernels: (_run(_at_8_bits(model, kernels)[1]).argmax(axis=1) == wanted).mean()
        for kernels in (True, False)
    }
    assert share[True] >= share[False] - 0.003
    assert share[False] > 0.97


@pytest.mark.parametrize("optimize", [True, False])
def test_the_file_computes_what_its_mirror_computes(optimize) -> None:
    mirror, written = _at_8_bits(_tagger())
    with torch.no_grad():
        wanted = mirror({"x": torch.from_numpy(_data()["x"])})["y"].numpy()
    np.testing.assert_allclose(_run(written, optimize), wanted, atol=2e-3)
