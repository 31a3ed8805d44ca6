import pytest

from onnx_cgmq.cli.settings import merge, parse_fixed, parse_widths_for, read_config
from onnx_cgmq.errors import ConfigError
from onnx_cgmq.settings.config import Config

NAMED = {"keep_float": [], "fix": {}}


def test_a_file_says_what_python_says(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text(
        'widths = [2, 8]\nkeep_float = ["head/*"]\nshapes = {image = [1, 3, 8, 8]}\n'
        '[fix]\n"conv1.weight" = 8\n[widths_for]\nLSTM = [4, 8]\n'
    )
    assert Config.create(**read_config(path)) == Config(
        widths=(2, 8),
        keep_float=("head/*",),
        shapes={"image": (1, 3, 8, 8)},
        fix={"conv1.weight": 8},
        widths_for={"LSTM": (4, 8)},
    )
    assert read_config(None) == {}


@pytest.mark.parametrize("content", ["widths = ", None])
def test_files_that_cannot_be_read(tmp_path, content):
    path = tmp_path / "settings.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"settings\.toml can't be read"):
        read_config(path)


def test_options_go_before_the_file_and_names_add_up():
    file = {"epochs": 3, "seed": 1, "fix": {"a": 4, "b": 4}, "keep_float": ["c"]}
    merged = merge(file, {"epochs": 5, "seed": None}, {"keep_float": ["d"], "fix": {"b": 8}})
    assert merged == {"epochs": 5, "seed": 1, "fix": {"a": 4, "b": 8}, "keep_float": ["c", "d"]}


@pytest.mark.parametrize("file", [{"fix": 8}, {"keep_float": "head"}])
def test_the_file_must_have_names_in_their_form(file):
    with pytest.raises(ConfigError, match=r"settings file: .* must be a (table|list)"):
        merge(file, {}, NAMED)


def test_names_may_contain_the_sign():
    assert parse_fixed(["a=b=8", "Conv=4"]) == {"a=b": 8, "Conv": 4}
    assert parse_widths_for(["head/*=4,8"]) == {"head/*": (4, 8)}
    assert parse_fixed(None) == {}
