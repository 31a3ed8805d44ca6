from __future__ import annotations

import onnx_ir as ir
import pytest

from onnx_cgmq.errors import ConfigError
from onnx_cgmq.gating.choices import Choices
from onnx_cgmq.settings.config import Config


def choices(**settings) -> Choices:
    """``conv1`` (w1) and ``conv2`` (w2) read x; ``head`` (w3) reads h."""
    nodes = {n: ir.Node("", o, [], name=n) for n, o in (("conv1", "Conv"), ("conv2", "Conv"))}
    nodes["head"] = ir.Node("", "Gemm", [], name="head")
    readers = {"x": ["conv1", "conv2"], "w1": ["conv1"], "w2": ["conv2"]}
    readers |= {"h": ["head"], "w3": ["head"]}
    by_name = {tensor: [nodes[name] for name in names] for tensor, names in readers.items()}
    return Choices(Config.create(**settings).choices, by_name, {"b1"})


def widths(made: Choices, tensor: str, activation: bool = False):
    ladder = made.ladder(tensor, activation=activation)
    return None if ladder is None else ladder.widths


def test_nothing_is_chosen_by_default() -> None:
    made = choices()
    made.check_used(())
    assert widths(made, "w1") is None
    assert not made.reads_float(made.readers["w1"][0], "x")


def test_exact_names_win_over_patterns_and_patterns_over_types() -> None:
    made = choices(fix={"w1": 2, "conv*": 4, "Conv": 8, "Gemm": 16})
    assert [widths(made, tensor) for tensor in ("w1", "w2", "w3")] == [(2,), (4,), (16,)]
    made = choices(fix={"conv1": 2, "conv*": 4, "Conv": 8})
    assert widths(made, "w1") == (2,)


def test_the_more_literal_pattern_wins() -> None:
    made = choices(widths_for={"*": (4, 8), "conv*": (2, 8), "conv?": (8,)})
    assert widths(made, "w3") == (4, 8)
    with pytest.raises(
        ConfigError, match=r"tensor 'w1' is chosen more than once: .*'conv\?' \(8\)"
    ):
        widths(made, "w1")


def test_nodes_with_different_choices_for_one_activation_are_an_error() -> None:
    made = choices(fix={"conv1": 4, "conv2": 8})
    with pytest.raises(ConfigError, match="tensor 'x' is chosen more than once"):
        widths(made, "x", activation=True)
    made = choices(fix={"conv1": 4, "conv2": 8, "x": 8})
    assert widths(made, "x", activation=True) == (8,)


def test_a_float_node_does_not_choose_for_the_other_readers() -> None:
    made = choices(keep_float=("conv1",), fix={"conv2": 4})
    conv1, conv2 = made.readers["x"]
    assert made.reads_float(conv1, "x")
    assert not made.reads_float(conv2, "x")
    assert widths(made, "x", activation=True) == (4,)
    assert widths(made, "w1") == (32,)
    assert not choices(keep_float=("conv1", "x")).reads_float(conv1, "x")


def test_biases_are_chosen_by_their_exact_name_only() -> None:
    assert widths(choices(fix={"b1": 8}), "b1") == (8,)
    assert widths(choices(fix={"*": 8}), "b1") is None


def test_carried_activations_are_chosen_by_their_exact_name_only() -> None:
    made = choices(fix={"c1": 4})
    assert widths(made, "c1", activation=True) == (4,)
    made.check_used({"c1"})
    made = choices(keep_float=("c?",))
    assert widths(made, "c1", activation=True) is None
    with pytest.raises(ConfigError, match=r"'c\?' matches no tensor, node or operator"):
        made.check_used({"c1"})


@pytest.mark.parametrize("pattern", ["conv3", "W*", "b?", "LSTM"])
def test_a_pattern_that_matches_nothing_is_an_error(pattern) -> None:
    with pytest.raises(ConfigError, match="matches no tensor, node or operator"):
        choices(keep_float=(pattern,)).check_used(())


def test_similar_names_are_suggested() -> None:
    with pytest.raises(ConfigError, match=r"'conv3' matches no .*did you mean conv2, conv1"):
        choices(keep_float=("conv3",)).check_used(())
