import json

import numpy as np
import onnx_ir as ir
import pytest

from onnx_cgmq.contract.run_paths import plan_path
from onnx_cgmq.writing.write_back import write_back
from tests.support.convolutions import gated
from tests.support.plans import draw_widths, make_plan


@pytest.fixture
def written(tmp_path):
    """A written model, with its plan beside it."""
    gates = gated(widths=(2, 4, 8), granularity="channel", activation_granularity="tensor")
    plan = make_plan(gates, draw_widths(gates, np.random.default_rng(3)))
    path = tmp_path / "out.onnx"
    ir.save(write_back(gates, plan), path)
    plan.save(plan_path(path))
    return path


def test_a_model_is_exported_with_notes(cli, written, tmp_path):
    output = tmp_path / "net.encodings"
    result = cli("export", written, "--as", "aimet", "-o", output)
    assert result.exit_code == 0, result.output
    assert result.stdout.split() == ["encodings", str(output), "model", str(tmp_path / "net.onnx")]
    assert "note: " in result.stderr
    assert "the encodings have the widest one" in result.stderr
    assert json.loads(output.read_text())["param_encodings"]


def test_json_has_files_and_notes(cli, written, tmp_path, only_json):
    output = tmp_path / "plan.encodings"
    result = cli("export", plan_path(written), "--as", "aimet", "-o", output, "--json")
    fields = only_json(result)
    assert fields["encodings"] == str(output)
    assert "model" not in fields
    assert fields["notes"]


def test_the_source_is_not_overwritten(cli, written, tmp_path):
    before = written.read_bytes()
    result = cli("export", written, "--as", "aimet", "-o", written.with_suffix(".json"))
    assert result.exit_code == 6
    assert "out.onnx is the source itself" in result.stderr
    result = cli("export", written, "--as", "aimet", "-o", written)
    assert result.exit_code == 6
    assert "give it another suffix" in result.stderr
    assert written.read_bytes() == before
    assert cli("export", written, "--as", "tvm", "-o", tmp_path / "x.json").exit_code == 2
