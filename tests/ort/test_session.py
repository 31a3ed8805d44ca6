import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_cgmq.data import open_data
from onnx_cgmq.errors import ModelError
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.graph.files.load import save_model
from onnx_cgmq.ort.session import open_session, open_written, run_onnxruntime
from onnx_cgmq.writing.write_back import write_back
from tests.support.plans import OF_ANY_WIDTH, make_plan
from tests.support.toys import mlp

DOUBLE = """
    <ir_version: 10, opset_import: ["" : 21]>
    double (float[{batch}, 2] x) => (float[{batch}, 2] y, float total)
    {{ y = Add(x, x)  total = ReduceSum<keepdims = 0>(x) }}
"""


def double(batch="n"):
    return onnx.parser.parse_model(DOUBLE.format(batch=batch))


@pytest.mark.parametrize("form", ["path", "proto", "ir"])
@pytest.mark.parametrize("optimize", [True, False])
def test_run_onnxruntime_returns_outputs_of_all_samples(tmp_path, form, optimize):
    model = double()
    x = np.arange(10, dtype=np.float32).reshape(5, 2)
    samples = open_data(x, ir.from_proto(model))
    onnx.save(model, tmp_path / "m.onnx")
    given = {"path": tmp_path / "m.onnx", "proto": model, "ir": ir.from_proto(model)}[form]
    outputs = run_onnxruntime(given, samples, batch_size=2, threads=1, optimize=optimize)
    assert np.array_equal(outputs["y"], 2 * x)
    assert outputs["total"].tolist() == [6, 22, 17]  # an output without batch axis: one a batch


def test_padding_samples_of_a_fixed_batch_are_left_out():
    x = np.ones((3, 2), np.float32)
    model = double(batch=2)
    outputs = run_onnxruntime(model, open_data(x, ir.from_proto(model)))
    assert outputs["y"].shape == (3, 2)


def test_models_that_do_not_load_are_errors(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        open_session(tmp_path / "missing.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"onnxruntime .* can't load .*bad.onnx"):
        open_session(tmp_path / "bad.onnx")
    broken = double()
    broken.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ModelError, match=r"can't load the model: .*NoSuchOperator"):
        open_session(broken)


def test_a_model_that_does_not_run_is_an_error():
    text = """
        <ir_version: 10, opset_import: ["" : 21]>
        g (float[n, 2] x) => (float[m, 3] y)
        <int64[2] shape = {-1, 3}> { y = Reshape(x, shape) }
    """
    model = onnx.parser.parse_model(text)
    samples = open_data(np.ones((2, 2), np.float32), ir.from_proto(model))
    with pytest.raises(ModelError, match="onnxruntime can't run the model"):
        run_onnxruntime(model, samples)


@pytest.mark.parametrize("form", OF_ANY_WIDTH)
def test_open_written_runs_every_form_like_the_gated_model(form, tmp_path):
    gated = insert_gates(mlp(), target="generic")
    widths = {"w1": 2, "w2": 4, "x": 4, "r": 2}
    names = quantizer_nodes(gated)
    plan = make_plan(gated, {name: np.array(widths.get(name, 8)) for name in names})
    written = write_back(gated, plan, form=form)
    before = ir.to_proto(written).SerializeToString(deterministic=True)
    x = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)
    (expected,) = open_session(gated, optimize=False).run(None, {"x": x})
    save_model(written, tmp_path / "m.onnx")
    for model in (written, tmp_path / "m.onnx"):
        (found,) = open_written(model).run(None, {"x": x})
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert ir.to_proto(written).SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(
    ("form", "advice"),
    [
        ("qonnx", r"in the form 'qonnx'.*write it in the form 'ort'"),
        ("native", "form 'native' .* needs its graph optimizations off"),
    ],
)
def test_the_error_on_a_form_for_other_flows_says_what_to_do(form, advice):
    gated = insert_gates(mlp(), target="generic")
    plan = make_plan(gated, {name: np.array(2) for name in quantizer_nodes(gated)})
    written = write_back(gated, plan, form=form)
    with pytest.raises(ModelError, match=advice):
        open_session(written)
