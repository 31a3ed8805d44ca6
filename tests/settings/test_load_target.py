from __future__ import annotations

import re
from pathlib import Path

import pytest

from onnx_cgmq.contract.bits import Granularity, Ranges
from onnx_cgmq.contract.form import Form
from onnx_cgmq.errors import ConfigError
from onnx_cgmq.settings import built_in_targets, load_target, target_text

SMALL = """
[weights]
widths = [4, 8]
[activations]
widths = [8]
"""


def test_built_in():
    assert built_in_targets() == (
        "generic",
        "native",
        "onnxruntime",
        "openvino",
        "ort-cpu",
        "ort-dynamic",
        "ort-weights",
        "qonnx",
        "tensorrt",
    )
    for name in built_in_targets():
        target = load_target(name)
        assert target.name == name
        assert target.description
        assert load_target(target) is target
    assert load_target("qonnx").form is Form.QONNX
    assert load_target("ort-cpu").weights.ranges is Ranges.CHANNEL


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ("widths = [4, 8]\ndynamic = true", "8 or 32 bits"),
        ("widths = [8]\ndynamic = true\ngranularity = ['tensor', 'channel']", "'tensor'"),
    ],
)
def test_what_is_found_at_run_time_has_8_bits_and_one_step(changed, what, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(SMALL.replace("[activations]\nwidths = [8]", f"[activations]\n{changed}"))
    with pytest.raises(ConfigError, match=what):
        load_target(path)


def test_a_file_needs_only_widths(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(SMALL)
    for given in (path, str(path)):
        target = load_target(given)
        assert (target.name, target.form) == ("mine", Form.ORT)
        assert target.weights.granularity == (Granularity.TENSOR,)
        assert target.biases.widths == (4, 8)
    assert target_text(path) == SMALL


def test_a_file_survives_a_round_trip_through_fields(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(SMALL)
    target = load_target(path)
    assert load_target(target.model_dump(mode="json")) == target
    with pytest.raises(ConfigError, match="target 'x': weights: Field required"):
        load_target({"name": "x"})


def test_the_file_in_the_docs_is_right(tmp_path):
    docs = Path(__file__).parents[2] / "docs" / "targets.md"
    blocks = re.findall(r"```toml\n(.*?)```", docs.read_text(encoding="utf-8"), re.DOTALL)
    path = tmp_path / "mine.toml"
    path.write_text("".join(blocks))
    target = load_target(path)
    assert target.weights.ranges is Ranges.CHANNEL
    assert target.cost.price(4, 8) * 8 == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("widths = ", "can't be read"),
        (SMALL + "colour = 1", "activations.colour: Extra inputs"),
        (SMALL.replace("[4, 8]", "[8, 4]"), "weights.widths: .*ascending"),
        (SMALL.replace("[4, 8]", "[3]"), "weights.widths: .*among"),
        (SMALL.replace("[4, 8]", "[0, 4]"), "weights.widths: width 0 is chosen with prune=True"),
        (SMALL.replace("[activations]", "[biases]"), "activations: Field required"),
        (SMALL + 'granularity = "row"', "activations.granularity"),
        (SMALL + "granularity = []", "activations.granularity"),
        (SMALL.replace("[activations]", 'ranges = "element"\n[activations]'), "weights.ranges"),
        ('form = "tflite"' + SMALL, "form: .*'ort', 'native', 'tensorrt' or 'qonnx'"),
    ],
)
def test_a_file_that_is_no_target(tmp_path, text, reason):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"target .*mine\.toml.*{reason}"):
        load_target(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"target .*no\.toml can't be read"):
        load_target(tmp_path / "no.toml")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("ort_cpu", "did you mean 'ort-cpu'"), ("gpu", "built-in targets are generic")],
)
def test_unknown_names(name, hint):
    with pytest.raises(ConfigError, match=rf"no target '{name}'.*{hint}.*\.toml file"):
        load_target(name)


def test_what_is_no_target():
    with pytest.raises(ConfigError, match="is not a name"):
        load_target(8)
