"""Which versions of onnxruntime a file is written for, and what that changes in the file."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from packaging.version import Version

from onnx_cgmq.contract.identifiers import RUNTIME_KEY
from onnx_cgmq.errors import ConfigError, ModelError
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.inspection import inspect
from onnx_cgmq.ort.versions import Runtime
from onnx_cgmq.preparation.prepare import prepare
from onnx_cgmq.writing.write_back import write_back
from tests.support.convolutions import LAYERS, network
from tests.support.plans import draw_widths, make_plan


@pytest.fixture(autouse=True)
def _installed(monkeypatch) -> None:
    monkeypatch.setattr(Runtime, "installed", classmethod(lambda cls: cls(Version("1.31.1"))))


@pytest.mark.parametrize(
    ("text", "oldest"),
    [
        ("onnxruntime>=1.22", "1.22"),
        ("onnxruntime >= 1.23.2, < 2", "1.23.2"),
        ("onnxruntime>1.22", "1.22"),
        ("onnxruntime~=1.23", "1.23"),
        ("onnxruntime==1.*,>=1.24", "1.24"),
        ("onnxruntime<2", "1.20"),
        ("onnxruntime", "1.20"),
        ("onnxruntime!=1.20", "1.21"),
        ("onnxruntime==1.31.1", "1.31.1"),
    ],
)
def test_required_returns_the_oldest_version_that_is_asked_for(text, oldest) -> None:
    assert Runtime.required(text).version == Version(oldest)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (">=1.22", "is no requirement"),
        ("onnxruntime=>1.22", "is no requirement"),
        ("numpy>=1.26", "only versions of onnxruntime"),
        ("onnxruntime>=1.23; python_version > '3'", "only versions of onnxruntime"),
        ("onnxruntime>=1.40", "is none of these versions"),
        ("onnxruntime>=1.25,<1.24", "is none of these versions"),
        ("onnxruntime>=1.15", "1.20 and newer"),
    ],
)
def test_requirements_that_can_not_be_met_are_refused(text, reason) -> None:
    with pytest.raises(ConfigError, match=reason):
        Runtime.required(text)


@pytest.mark.parametrize(
    ("version", "opset"), [("1.20", 21), ("1.22.1", 22), ("1.23.2", 22), ("1.24.1", 25)]
)
def test_opset_of_a_version(version, opset) -> None:
    assert Runtime(Version(version)).opset == opset


@pytest.mark.parametrize(
    ("runtime", "opset", "narrowest"),
    [("onnxruntime>=1.22", 22, "INT8"), ("onnxruntime>=1.23", 22, "INT4")],
)
def test_a_file_for_older_versions_has_their_opset_and_types(runtime, opset, narrowest) -> None:
    gated = insert_gates(network(np.random.default_rng(0), LAYERS), runtime=runtime)
    plan = make_plan(gated, draw_widths(gated, np.random.default_rng(0)))
    written = write_back(gated, plan)
    assert written.opset_imports[""] == opset
    assert written.ir_version <= 10
    types = {value.dtype for value in written.graph.initializers.values()}
    assert ir.DataType[narrowest] in types
    assert not types & {ir.DataType.INT2, ir.DataType.UINT2}
    assert RUNTIME_KEY not in written.metadata_props
    report = inspect(written)
    assert report.bops == plan.cost.bops
    assert report.weight_bytes == plan.cost.weight_bytes


def test_a_model_with_a_newer_opset_than_the_runtime_is_refused() -> None:
    model = network(np.random.default_rng(0), LAYERS)
    model.opset_import[0].version = 24
    with pytest.raises(
        ModelError, match=r"opset 24; onnxruntime 1\.22 runs quantized models up to"
    ):
        prepare(model, runtime="onnxruntime>=1.22")


def test_a_model_that_was_prepared_for_newer_versions_is_refused() -> None:
    model = network(np.random.default_rng(0), LAYERS)
    with pytest.raises(ConfigError, match=r"was prepared for onnxruntime 1\.31\.1"):
        insert_gates(prepare(model), runtime="onnxruntime>=1.23")
    prepared = prepare(model, runtime="onnxruntime>=1.23")
    assert Runtime.of(insert_gates(prepared)).version == Version("1.23")
    assert Runtime.of(insert_gates(prepared, runtime="onnxruntime>=1.24")).version == Version(
        "1.23"
    )
