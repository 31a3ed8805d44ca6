"""A file that is taken apart: rounding the float model to the encodings gives its values back."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnxruntime.quantization import CalibrationDataReader, quantize_static

from onnx_cgmq.contract.bits import GridForm, Role
from onnx_cgmq.contract.encodings import encodings_of
from onnx_cgmq.contract.identifiers import PLAN_KEY
from onnx_cgmq.errors import ModelError
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.inspection.unquantized import unquantized
from onnx_cgmq.writing.write_back import write_back
from tests.support.convolutions import gated, samples
from tests.support.encodings import simulated
from tests.support.plans import draw_widths, make_plan
from tests.support.referee import parse
from tests.support.toys import convnet, toy_data


def run(model: ir.Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    content = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def assert_gives_back(written: ir.Model, feeds: dict[str, np.ndarray]):
    """Takes a file apart, and compares the outputs of the rounded float model."""
    parts = unquantized(written)
    proto = ir.to_proto(parts.model)
    onnx.checker.check_model(proto, full_check=True)
    assert not {"QuantizeLinear", "DequantizeLinear"} & {node.op_type for node in proto.graph.node}
    assert PLAN_KEY not in parts.model.metadata_props
    found = run(simulated(parts.model, parts.encodings), feeds)
    for one, other in zip(found, run(written, feeds), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(other).max())
    return parts


@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize("form", ["ort", "native"])
@pytest.mark.parametrize("seed", range(3))
def test_encodings_are_those_of_the_plan(form, compact, seed) -> None:
    model = gated(widths=(2, 4, 8))
    plan = make_plan(model, draw_widths(model, np.random.default_rng(seed)))
    written = write_back(model, plan, form=form, compact=compact)
    parts = assert_gives_back(written, {"x": samples()})
    assert not parts.notes
    wanted, _ = encodings_of(plan)
    for name, encoding in wanted.items():
        assert parts.encodings[name].width == encoding.width, name
        assert parts.encodings[name].form is encoding.form, name
        np.testing.assert_array_equal(parts.encodings[name].step, encoding.step, name)
        np.testing.assert_array_equal(parts.encodings[name].zero_point, encoding.zero_point, name)


def test_weights_with_several_widths_are_noted() -> None:
    model = gated(granularity="channel", activation_granularity="tensor", widths=(2, 4, 8))
    plan = make_plan(model, draw_widths(model, np.random.default_rng(3)))
    parts = assert_gives_back(write_back(model, plan), {"x": samples()})
    assert any("with several widths: the encodings have the widest one" in n for n in parts.notes)


def test_activations_of_16_bits_stay_rounded_by_float_nodes() -> None:
    model = gated(widths=(8, 16))
    widths = {name: np.array(16 if name == "x" else 8) for name in quantizer_nodes(model)}
    parts = assert_gives_back(write_back(model, make_plan(model, widths)), {"x": samples()})
    assert "'x'" in parts.notes[0]
    assert "x" not in parts.encodings


BODIES = {
    "residual": "h = Conv<pads=[1,1,1,1]>(x, w) r = Relu(h) g = Conv<pads=[1,1,1,1]>(r, v) "
    "s = Add(g, r) y = Conv<pads=[1,1,1,1]>(s, w)",
    "movers": "h = Conv<pads=[1,1,1,1]>(x, w) p = MaxPool<kernel_shape=[2,2]>(h) "
    "t = Transpose<perm=[0,1,3,2]>(p) y = Conv(t, v)",
    "clip": "h = Conv<pads=[1,1,1,1]>(x, w) c = Clip(h, low, high) y = Conv(c, v)",
    "hard swish": "h = Conv<pads=[1,1,1,1]>(x, w) s = HardSigmoid(h) m = Mul(h, s) y = Conv(m, v)",
    "float reader": "h = Conv<pads=[1,1,1,1]>(x, w) e = Exp(x) g = Conv<pads=[1,1,1,1]>(h, v) "
    "y = Add(g, e)",
    "input and output": "h = Conv<pads=[1,1,1,1]>(x, w) z = Identity(x) y = Add(h, z)",
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("form", ["ort", "native"])
def test_what_codes_do_between_kernels_floats_do_too(name, form) -> None:
    rng = np.random.default_rng(0)
    model = parse("float[n,3,6,6] x", "float[n,c,a,b] y", BODIES[name])
    arrays = {
        "w": rng.normal(0, 0.4, (3, 3, 3, 3)),
        "v": rng.normal(0, 0.4, (3, 3, 3, 3)),
        "low": np.array(-0.2),
        "high": np.array(0.6),
    }
    for key, array in arrays.items():
        tensor = onnx.numpy_helper.from_array(array.astype(np.float32), key)
        model.graph.initializer.append(tensor)
    gates = insert_gates(model, target="onnxruntime", shapes={"x": (1, 3, 6, 6)})
    widths = {key: np.array(8) for key in quantizer_nodes(gates)}
    widths |= {
        key: np.array(32) for key, (_, s) in quantizer_nodes(gates).items() if s.role is Role.BIAS
    }
    plan = make_plan(gates, widths)
    feeds = {"x": rng.normal(0, 1, (4, 3, 6, 6)).astype(np.float32)}
    assert_gives_back(write_back(gates, plan, form=form), feeds)


def test_a_relu_that_became_a_smallest_code_is_a_relu_again() -> None:
    model = gated(widths=(8,))
    plan = make_plan(model)
    parts = unquantized(write_back(model, plan))
    unsigned = [t for t in plan.tensors.values() if t.form is GridForm.UNSIGNED]
    operators = [node.op_type for node in parts.model.graph]
    assert operators.count("Relu") >= len(unsigned) - 1  # one is behind a MaxPool and a Flatten


class Reader(CalibrationDataReader):
    def __init__(self, x) -> None:
        self._batches = iter([{"x": x}])

    def get_next(self):
        return next(self._batches, None)


def test_a_file_of_quantize_static_is_taken_apart(tmp_path) -> None:
    model, x = convnet(), toy_data(convnet())["x"][:8]
    paths = tmp_path / "float.onnx", tmp_path / "quantized.onnx"
    onnx.save(model, paths[0])
    extra = {"QuantizeBias": False}
    quantize_static(*paths, Reader(x), per_channel=True, extra_options=extra)
    parts = unquantized(paths[1])
    assert {"x", "k1", "k2", "w"} <= parts.encodings.keys()
    assert parts.encodings["k1"].step.shape == (4,)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("y = MatMul(x, w)", "no quantizer that encodings could say"),
        (
            "q, s, z = DynamicQuantizeLinear(x) y = DequantizeLinear(q, s, z)",
            "a step that the data decide",
        ),
    ],
)
def test_what_can_not_be_taken_apart_is_refused(body, message) -> None:
    model = parse("float[2,2] x", "float[2,2] y", body)
    if "w" in body:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.eye(2, dtype="f"), "w"))
    with pytest.raises(ModelError, match=message):
        unquantized(model)


def test_an_activation_with_a_step_for_each_channel_is_refused() -> None:
    model = gated(granularity="channel", activation_granularity="channel", widths=(8,))
    written = write_back(model, make_plan(model), form="native")
    with pytest.raises(ModelError, match="a step for each channel of an activation"):
        unquantized(written)
