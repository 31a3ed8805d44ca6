from __future__ import annotations

import pytest
from pydantic import ValidationError

from onnx_cgmq.bits import Granularity
from onnx_cgmq.config import Config, Direction
from onnx_cgmq.errors import ConfigError


def test_defaults_are_valid():
    config = Config()
    assert config == Config.create()
    assert config.ladder.widths == (2, 4, 8, 16, 32)
    assert config.weight_ladder == config.ladder


def test_names_are_enough():
    config = Config.create(granularity="element", direction="gradient", widths=[2, 8])
    assert config.granularity is Granularity.ELEMENT
    assert config.direction is Direction.GRADIENT
    assert config.widths == (2, 8)


def test_activations_follow_the_weights_unless_told():
    assert Config.create(granularity="channel").activations is Granularity.CHANNEL
    config = Config.create(granularity="channel", activation_granularity="tensor")
    assert config.activations is Granularity.TENSOR


def test_pruning_is_for_weights():
    config = Config.create(granularity="element", prune=True)
    assert config.weight_ladder.widths == (0, 2, 4, 8, 16, 32)
    assert config.ladder.widths == (2, 4, 8, 16, 32)


def test_choices_are_widths_by_name():
    config = Config(keep_float=("head",), fix={"w": 8}, widths_for={"Conv": (2, 4)})
    assert config.choices == (("head", (32,)), ("w", (8,)), ("Conv", (2, 4)))


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
        ({"prune": True}, "would remove whole layers"),
        ({"input_width": 7}, "input_width must be"),
        ({"fix": {"w": 3}}, "widths"),
        ({"fix": {"w": 0}}, "'w': width 0 is chosen with prune=True"),
        ({"widths_for": {"w": (8, 4)}}, "ascending"),
        ({"shapes": {"x": (1, 0)}}, "shapes.x"),
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
