"""What the tools say of a file that other versions of onnxruntime run."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from packaging.version import Version
from toys import mlp

from onnx_cgmq.ort.versions import Runtime

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    names = ("runtimes", "measure_runtimes", "compare_runtimes")
    yield [importlib.import_module(name) for name in names]
    for name in names:
        sys.modules.pop(name, None)


def test_the_installed_version_agrees_with_itself_and_a_broken_file_is_told(tools, tmp_path):
    runtimes, _, compare = tools
    good, broken = tmp_path / "good.onnx", tmp_path / "broken.onnx"
    good.write_bytes(mlp().SerializeToString())
    broken.write_bytes(good.read_bytes()[:-9])
    data = compare.random_data(good, tmp_path)
    since = Version("1.0")
    subjects = [compare.Subject(p.stem, runtimes.Job(p, data), since) for p in (good, broken)]
    fine, bad = compare.compare(subjects, [runtimes.Interpreter()])
    version = str(Runtime.installed().version)
    assert fine[:3] == ["good", f"{good.stat().st_size:,}", version]
    assert fine[4:6] == ["equal", "equal"]
    assert bad[2:4] == [version, "**fails**: does not load"]


def test_the_installed_version_takes_what_the_package_relies_on(tools, tmp_path):
    runtimes, measure, _ = tools
    found = measure.measure(runtimes.Interpreter(), tmp_path)
    assert found["version"] == str(Runtime.installed().version)
    assert measure.differences([found]) == []
    lying = {**found, "opset": 20, "ways": []}
    assert len(measure.differences([lying])) == 1 + len(measure.WAYS)


def test_agreement(tools):
    _, _, compare = tools
    a = np.array([[1.0, 2.0], [3.0, 1.0]], np.float32)
    assert compare.agreement(a, a.copy()) == "equal"
    assert compare.agreement(a, a + np.array([[0, 0], [0, 4]], np.float32)).startswith("50.00%")
    assert compare.agreement(a, None) == ""
