"""What the tool says of a file that other versions of onnxruntime run."""

from __future__ import annotations

import numpy as np
from packaging.version import Version

from onnx_cgmq.ort.versions import Runtime
from tests.support.toys import mlp
from tools.compare import runtimes
from tools.measure.other_runtimes import Interpreter, Job


def test_the_installed_version_agrees_with_itself_and_a_broken_file_is_told(tmp_path):
    good, broken = tmp_path / "good.onnx", tmp_path / "broken.onnx"
    good.write_bytes(mlp().SerializeToString())
    broken.write_bytes(good.read_bytes()[:-9])
    data = runtimes.random_data(good, tmp_path)
    since = Version("1.0")
    subjects = [runtimes.Subject(p.stem, Job(p, data), since) for p in (good, broken)]
    fine, bad = runtimes.compare(subjects, [Interpreter()])
    version = str(Runtime.installed().version)
    assert fine[:3] == ["good", f"{good.stat().st_size:,}", version]
    assert fine[4:6] == ["equal", "equal"]
    assert bad[2:4] == [version, "**fails**: does not load"]


def test_agreement():
    a = np.array([[1.0, 2.0], [3.0, 1.0]], np.float32)
    assert runtimes.agreement(a, a.copy()) == "equal"
    assert runtimes.agreement(a, a + np.array([[0, 0], [0, 4]], np.float32)).startswith("50.00%")
    assert runtimes.agreement(a, None) == ""
