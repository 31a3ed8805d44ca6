"""sensitivity(): each tensor alone and among all others, ranked, beside operations and bytes."""

from __future__ import annotations

import json
from io import StringIO

import numpy as np
import pytest
import torch
from rich.console import Console

import onnx_cgmq
from onnx_cgmq.api.sensitivity import sensitivity
from onnx_cgmq.contract.bits import Role
from onnx_cgmq.errors import ConfigError, ModelError
from onnx_cgmq.ort.session import open_session
from tests.support.staged import correlated
from tests.support.toys import convnet, mlp, toy_data


def _data(model):
    return correlated(model, 120, 0)


def test_tensors_are_ranked_by_what_they_cost_alone() -> None:
    found = sensitivity(convnet(), _data(convnet()))
    assert {tensor.name for tensor in found.tensors} == {"x", "k1", "p", "k2", "f", "w"}
    losses = [tensor.loss for tensor in found.tensors]
    assert losses == sorted(losses, reverse=True)
    for tensor in found.tensors:
        assert set(tensor.alone) == {2, 4, 8}
        assert tensor.width == 4
        assert tensor.loss == tensor.alone[4]
        assert tensor.alone[2] > tensor.alone[8]
        assert 2 * tensor.bops[2] == tensor.bops[4] == tensor.bops[8] / 2
    weights = {t.name: t for t in found.tensors if t.role is Role.WEIGHT}
    assert weights["k2"].stored_bytes == {2: 54, 4: 108, 8: 216}
    assert {t.stored_bytes[4] for t in found.tensors if t.role is Role.ACTIVATION} == {0}


def test_a_tensor_that_alone_stays_float_is_not_wrong_any_more() -> None:
    """Where there is one other tensor, what is left is what that one costs alone."""
    model = mlp()
    settings = {"keep_float": ["first", "last"], "widths_for": {"w1": (2, 8), "w2": (2, 8)}}
    found = sensitivity(model, _data(model), width=2, integer_kernels=False, **settings)
    one, other = found.tensors
    assert {one.name, other.name} == {"w1", "w2"}
    both = one.among + other.loss
    assert both == pytest.approx(other.among + one.loss, rel=1e-4)
    assert one.among > 0


def test_the_costliest_weight_is_that_of_the_worst_written_file() -> None:
    model, other = convnet(), correlated(convnet(), 200, 1)
    found = sensitivity(model, _data(model), equalize=False)
    (wanted,) = open_session(model, threads=1).run(["y"], other)
    errors = {}
    for weight in (t for t in found.tensors if t.role is Role.WEIGHT):
        gated = onnx_cgmq.insert_gates(
            model, keep_float=("*",), fix={weight.name: 4}, integer_kernels=False
        )
        mirror = onnx_cgmq.Mirror(gated)
        mirror(_tensors(other))
        written = onnx_cgmq.write_back(gated, mirror.plan())
        (given,) = open_session(written, threads=1).run(["y"], other)
        errors[weight.name] = float(((wanted - given) ** 2).sum())
    first = next(t.name for t in found.tensors if t.role is Role.WEIGHT)
    assert first == max(errors, key=errors.__getitem__)


def _tensors(arrays):
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def test_a_plan_gives_the_widths(tmp_path) -> None:
    model, data = convnet(), _data(convnet())
    result = onnx_cgmq.quantize(model, data, "2.5%", effort="fast", output=tmp_path / "out.onnx")
    found = sensitivity(model, data, learned=tmp_path / "out.plan.json")
    assert found == sensitivity(model, data, learned=result.plan)
    widths = {tensor.name: tensor.width for tensor in found.tensors}
    assert widths == {name: int(result.plan.tensors[name].widths) for name in widths}
    assert len(set(widths.values())) > 1
    assert (found.bops, found.weight_bytes) == (result.cost.bops, result.cost.weight_bytes)


def test_a_plan_of_something_else_is_refused(tmp_path) -> None:
    model, data = mlp(), _data(mlp())
    plan = onnx_cgmq.quantize(model, data, "6.25%", epochs=1).plan
    with pytest.raises(ConfigError, match="no quantizer here"):
        sensitivity(convnet(), _data(convnet()), learned=plan)
    with pytest.raises(ConfigError, match=r"8 bits for '\w+', not allowed here"):
        sensitivity(model, data, learned=plan, widths=(2, 4))
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(ModelError, match="version None"):
        sensitivity(model, data, learned=tmp_path / "broken.json")
    with pytest.raises(ModelError, match="can't be read"):
        sensitivity(model, data, learned=tmp_path / "missing.json")


def test_odd_numbers_are_refused() -> None:
    with pytest.raises(ConfigError, match="no tensor may have 1 bits"):
        sensitivity(mlp(), _data(mlp()), width=1)
    with pytest.raises(ConfigError, match="at least one"):
        sensitivity(mlp(), _data(mlp()), samples=0)


def test_json_and_table_have_every_tensor() -> None:
    found = sensitivity(mlp(), toy_data(mlp()), samples=1)
    record = json.loads(found.to_json())
    assert [tensor["name"] for tensor in record["tensors"]] == [t.name for t in found.tensors]
    assert record["samples"] == 1
    dominant = sum(tensor.loss for tensor in found.dominant)
    assert dominant >= 0.8 * sum(tensor.loss for tensor in found.tensors)
    assert record["dominant"] == [tensor.name for tensor in found.dominant]
    console = Console(width=100, record=True, file=StringIO())
    console.print(found.table())
    text = console.export_text()
    assert all(tensor.name in text for tensor in found.tensors)
    assert found.text in text


def test_a_page_has_every_tensor() -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib", reason="the extra 'report' is not installed")
    found = sensitivity(mlp(), _data(mlp()))
    html = onnx_cgmq.html_report(found, command=["onnx-cgmq", "sensitivity"])
    assert all(f"<td>{tensor.name}</td>" in html for tensor in found.tensors)
    assert html.count('<i class="bar') == len(found.tensors)
    assert np.all([f"loss, {width} bits" in html for width in (2, 4, 8)])
