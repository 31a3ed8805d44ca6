"""The report of a run: what was reached, errors, histograms, its course, its settings."""

from __future__ import annotations

import re

import numpy as np
import pytest

from onnx_cgmq.api.pipeline import quantize
from onnx_cgmq.contract.events import Notice
from onnx_cgmq.reporting.html_report import html_report
from tests.support.toys import convnet, toy_data

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib", reason="the extra 'report' is not installed")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def result():
    model = convnet()
    return quantize(model, toy_data(model), "2%", epochs=3, batch_size=64, seed=7)


def test_a_result_has_what_happened(result) -> None:
    kinds = [event.kind for event in result.events]
    assert kinds.count("epoch") == len(result.history) == 3
    assert "started" in kinds
    assert not {"step", "progress"} & set(kinds)
    assert result.config.seed == 7
    assert len(result.held_out) > 0


def test_all_sections(result) -> None:
    html = html_report(result, command=["onnx-cgmq", "quantize", "my model.onnx"])
    for anchor in (
        "summary", "notes", "widths", "errors", "histograms", "kernels", "course", "settings",
    ):  # fmt: skip
        assert f'<section id="{anchor}">' in html
    assert '<div class="good">\n<dt>Bound</dt><dd>kept<small>2%</small>' in html
    assert "<dt>seed</dt><dd>7</dd>" in html
    assert "onnx-cgmq quantize &#39;my model.onnx&#39;" in html
    for name in result.plan.tensors:
        assert f"<td>{name}</td>" in html
    assert html.count("<figure>") == 3 + len(re.findall(r"bits, error", html))
    assert html.count("bits, error") >= 3
    assert "From epoch to epoch" in html
    for event in result.events:
        if isinstance(event, Notice):
            assert event.message.split("'")[0] in html


def test_sizes_and_outputs(result, tmp_path) -> None:
    path = tmp_path / "small.onnx"
    result.save(path)
    html = html_report(result, file=path, float_file=path)
    size = path.stat().st_size
    assert f"<dd>{size:,} bytes<small>float {size:,}, 1.0 times as many</small>" in html
    assert "<h1>small.onnx</h1>" in html


def test_no_number_of_a_cell_is_nan(result) -> None:
    keys = re.findall(r'data-key="(.*?)"', html_report(result))
    assert keys
    assert np.isfinite([float(key) for key in keys]).all()
