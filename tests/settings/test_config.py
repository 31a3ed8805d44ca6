from __future__ import annotations

import pytest
from pydantic import ValidationError

from onnx_cgmq.contract.bits import Granularity, GridForm, Ranges
from onnx_cgmq.contract.form import Form
from onnx_cgmq.errors import ConfigError
from onnx_cgmq.settings.config import Config, Direction


def test_defaults_are_valid():
    config = Config()
    assert config == Config.create()
    assert config.ladder.widths == (2, 4, 8)
    assert config.weight_ladder == config.ladder


def test_names_are_enough():
    config = Config.create(granularity="element", direction="gradient", widths=[2, 8])
    assert config.granularity is Granularity.ELEMENT
    assert config.direction is Direction.GRADIENT
    assert config.widths == (2, 8)


def test_activations_follow_the_weights_unless_told():
    config = Config.create(target="generic", granularity="channel")
    assert config.activations is Granularity.CHANNEL
    config = Config.create(target="generic", granularity="channel", activation_granularity="tensor")
    assert config.activations is Granularity.TENSOR
    assert Config.create(granularity="channel").activations is Granularity.TENSOR


def test_pruning_is_for_weights():
    config = Config.create(granularity="element", prune=True)
    assert config.weight_ladder.widths == (0, 2, 4, 8)
    assert config.ladder.widths == (2, 4, 8)


def test_choices_are_widths_by_name():
    config = Config(keep_float=("head",), fix={"w": 8}, widths_for={"Conv": (2, 4)})
    assert config.choices == (("head", (32,)), ("w", (8,)), ("Conv", (2, 4)))


def test_the_default_target_changes_nothing():
    config = Config()
    assert config.target.name == "onnxruntime"
    for name, field in Config.model_fields.items():
        if name not in ("target", "activation_widths", "bias_widths", "activation_granularity"):
            assert getattr(config, name) == field.default, name
    assert config.activation_ladder == config.ladder
    assert config.bias_ladder.widths == (32,)
    assert config.activations is config.granularity


def test_the_default_target_makes_fast_files():
    config = Config()
    assert config.weight_ranges is Ranges.CHANNEL
    assert config.activations is Granularity.TENSOR
    assert (config.form, config.integer_kernels, config.exact_steps) == (Form.ORT, True, False)
    with pytest.raises(ConfigError, match="'onnxruntime' has no weights of 16 bits"):
        Config.create(widths=(8, 16))


def test_the_generic_target_has_all_widths_of_the_paper():
    config = Config.create(target="generic")
    assert config.ladder.widths == (2, 4, 8, 16, 32)
    assert config.activation_ladder == config.bias_ladder == config.ladder
    assert config.weight_ranges is Ranges.TENSOR


def test_what_is_not_set_comes_from_the_target():
    config = Config.create(target="ort-cpu")
    assert (config.widths, config.activation_widths, config.bias_widths) == ((2, 4, 8), (8,), (32,))
    assert config.integer_kernels
    assert config.exact_steps
    assert config.weight_ranges is Ranges.CHANNEL
    assert not Config.create(target="ort-cpu", integer_kernels=False).integer_kernels


@pytest.mark.parametrize(
    ("target", "widths", "activation_widths", "bias_widths"),
    [
        ("generic", (2, 8), (2, 8), (2, 8)),
        ("onnxruntime", (2, 4), (2, 4), (32,)),
        ("qonnx", (2, 4), (2, 4), (32,)),
        ("ort-cpu", (2, 4), (8,), (32,)),
    ],
)
def test_activations_and_biases_follow_weights_where_the_target_allows_it(
    target, widths, activation_widths, bias_widths
):
    config = Config.create(target=target, widths=widths)
    assert config.activation_widths == config.activation_ladder.widths == activation_widths
    assert config.bias_ladder.widths == bias_widths
    chosen = Config.create(target="generic", widths=widths, activation_widths=(4,))
    assert chosen.activation_ladder.widths == (4,)
    gates = Config.create(target=target, granularity="channel")
    follows = Granularity.CHANNEL if target == "generic" else Granularity.TENSOR
    assert gates.activations is follows


@pytest.mark.parametrize(
    ("settings", "moves"),
    [
        ({}, True),
        ({"target": "ort-cpu"}, True),
        ({"equalize": False}, False),
        ({"granularity": "channel"}, False),
        ({"weight_ranges": "tensor"}, False),
        ({"target": "generic"}, False),
        ({"target": "generic", "weight_ranges": "channel"}, True),
        ({"target": "qonnx"}, False),
    ],
)
def test_factors_move_only_where_a_weight_has_a_range_for_each_channel(settings, moves):
    assert Config.create(**settings).moves_factors is moves


def test_settings_can_be_written_and_read():
    config = Config.create(target="ort-cpu", widths=(4, 8))
    assert Config.create(**config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (
            {"widths": (8, 16, 32)},
            "target 'ort-cpu' has no weights of 16, 32 bits: choose from 2, 4, 8, or another",
        ),
        ({"activation_widths": (4, 8)}, "has no activations of 4 bits: choose from 8"),
        ({"input_width": 4}, "no activations of 4 bits"),
        ({"activation_granularity": "channel"}, "no 'channel' gates for activations"),
    ],
)
def test_what_a_target_does_not_have(settings, reason):
    with pytest.raises(ConfigError, match=reason):
        Config.create(target="ort-cpu", **settings)


def test_unknown_target():
    with pytest.raises(ConfigError, match="did you mean 'ort-cpu'"):
        Config.create(target="ort_cpu")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"colour": 1}, "colour: Extra inputs"),
        ({"epochs": 0}, "epochs"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"validation_share": 1.0}, "validation_share"),
        ({"time_limit": 0}, "time_limit"),
        ({"granularity": "row"}, "granularity"),
        ({"widths": (2, 3)}, "widths"),
        ({"widths": (8, 4)}, "ascending"),
        ({"widths": (0, 4)}, "prune=True, not in widths"),
        ({"activation_widths": (0, 4)}, "prune=True, not in widths"),
        ({"bias_widths": (4, 2)}, "ascending"),
        ({"prune": True}, "would remove whole layers"),
        ({"input_width": 7}, "input_width: .*2, 4, 8, 16 or 32"),
        ({"fix": {"w": 3}}, "widths"),
        ({"fix": {"w": 0}}, "'w': width 0 is chosen with prune=True"),
        ({"widths_for": {"w": (8, 4)}}, "ascending"),
        ({"shapes": {"x": (1, -1)}}, "shapes.x"),
        ({"epochs": 0, "seed": -1}, "epochs.*; seed"),
    ],
)
def test_bad_settings(settings, reason):
    with pytest.raises(ConfigError, match=f"invalid settings: .*{reason}"):
        Config.create(**settings)


def test_messages_are_plain():
    with pytest.raises(ConfigError, match=r"^invalid settings: prune=True with"):
        Config.create(prune=True)


def test_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Config().epochs = 3


def test_form_comes_from_the_target_unless_given() -> None:
    assert Config().form is Form.ORT
    assert Config.create(target="qonnx").form is Form.QONNX
    assert Config.create(target="qonnx", form="native").form is Form.NATIVE
    assert Config.create(form="qonnx").signed_grid is GridForm.SYMMETRIC
    assert Config.create(form="native").signed_grid is GridForm.AFFINE
