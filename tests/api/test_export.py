from __future__ import annotations

import json

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from onnx_cgmq.api.export import export_encodings
from onnx_cgmq.contract.run_paths import plan_path
from onnx_cgmq.errors import ConfigError, ModelError, OutputError
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.writing.write_back import write_back
from tests.support.convolutions import gated, samples
from tests.support.plans import draw_widths, make_plan


@pytest.fixture
def written(tmp_path):
    """A written model of 4 and 8 bits, and its plan beside it."""
    gates = gated(widths=(4, 8))
    plan = make_plan(gates, draw_widths(gates, np.random.default_rng(1)))
    path = tmp_path / "out.onnx"
    ir.save(write_back(gates, plan), path)
    plan.save(plan_path(path))
    return path


def test_a_model_is_exported_with_its_float_model(written, tmp_path) -> None:
    exported = export_encodings(written, "aimet")
    files = exported.save(tmp_path / "net.encodings")
    assert [path.name for path in files] == ["net.encodings", "net.onnx"]
    fields = json.loads(files[0].read_text())
    assert fields["version"] == "1.0.0"
    names = {entry["name"] for entry in fields["activation_encodings"] + fields["param_encodings"]}
    model = onnx.load(files[1])
    values = [tensor.name for tensor in model.graph.initializer] + ["x"]
    values += [name for node in model.graph.node for name in node.output]
    assert names <= set(values)


def test_a_plan_says_the_same_as_its_file(written) -> None:
    of_plan = export_encodings(plan_path(written), "aimet")
    of_model = export_encodings(written, "aimet")
    assert of_plan.model is None
    for group in ("activation_encodings", "param_encodings"):
        mine, theirs = (
            {entry["name"]: entry for entry in json.loads(exported.text)[group]}
            for exported in (of_plan, of_model)
        )
        assert mine
        assert {name: theirs[name] for name in mine} == mine


class Reader(CalibrationDataReader):
    def __init__(self, x) -> None:
        self._batches = iter([{"x": x}])

    def get_next(self):
        return next(self._batches, None)


def test_quantize_static_takes_scales_and_types(written, tmp_path) -> None:
    text, model = export_encodings(written, "ort-overrides").save(tmp_path / "overrides.json")
    dtypes = {"QInt4": np.int8, "QUInt4": np.uint8, "QInt8": np.int8, "QUInt8": np.uint8}
    overrides = {
        name: [
            entry
            | {
                "quant_type": QuantType[entry["quant_type"]],
                "scale": np.array(entry["scale"], np.float32),
                "zero_point": np.array(entry["zero_point"], dtypes[entry["quant_type"]]),
            }
            for entry in entries
        ]
        for name, entries in json.loads(text.read_text()).items()
    }
    output = tmp_path / "static.onnx"
    quantize_static(
        model, output, Reader(samples()), extra_options={"TensorQuantOverrides": overrides}
    )
    static = onnx.load(output)
    stored = {tensor.name: tensor for tensor in static.graph.initializer}
    seen = 0
    for name, entries in overrides.items():
        if f"{name}_scale" not in stored:  # onnxruntime has no quantizer there
            continue
        seen += 1
        scales = onnx.numpy_helper.to_array(stored[f"{name}_scale"]).reshape(-1)
        np.testing.assert_array_equal(scales, [entry["scale"] for entry in entries])
        wanted = entries[0]["quant_type"].tensor_type
        assert stored[f"{name}_zero_point"].data_type == wanted, name
    assert seen >= 8


def test_widths_that_a_format_can_not_say_are_an_error() -> None:
    gates = gated(widths=(2, 4, 8))
    plan = make_plan(gates, {name: np.array(2) for name in quantizer_nodes(gates)})
    with pytest.raises(ConfigError, match=r"of 2 bits.*export as aimet"):
        export_encodings(plan, "ort-overrides")
    mixed = gated(granularity="element", activation_granularity="tensor", widths=(2, 8))
    plan = make_plan(mixed, draw_widths(mixed, np.random.default_rng(0)))
    with pytest.raises(ConfigError, match="a width for each element"):
        export_encodings(plan, "aimet")


def test_what_is_no_source_or_format_is_an_error(written, tmp_path) -> None:
    with pytest.raises(ConfigError, match="no format 'tvm'; choose aimet, ort-overrides"):
        export_encodings(written, "tvm")
    with pytest.raises(ModelError, match=r"none\.json can't be read: No such file"):
        export_encodings(tmp_path / "none.json", "aimet")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ModelError, match="bit plan version None"):
        export_encodings(tmp_path / "bad.json", "aimet")
    with pytest.raises(OutputError, match="does not exist"):
        export_encodings(written, "aimet").save(tmp_path / "no" / "net.encodings")
