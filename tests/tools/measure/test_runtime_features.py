"""That the installed onnxruntime takes what the package relies on, and that a difference shows."""

from __future__ import annotations

from onnx_cgmq.ort.versions import Runtime
from tools.measure import runtime_features
from tools.measure.other_runtimes import Interpreter


def test_the_installed_version_takes_what_the_package_relies_on(tmp_path):
    found = runtime_features.measure(Interpreter(), tmp_path)
    assert found["version"] == str(Runtime.installed().version)
    assert runtime_features.differences([found]) == []
    lying = {**found, "opset": 20, "ways": []}
    assert len(runtime_features.differences([lying])) == 1 + len(runtime_features.WAYS)
