"""How converters are run on the standard's cases: outcomes, frozen weights, gradients."""

from __future__ import annotations

from tools.fetch.backend_cases import Case, load
from tools.workers import convert_cases as tool


def _case(name: str) -> Case:
    return next(case for case in load() if case.name == name)


def test_the_mirror_passes_as_it_is_and_with_frozen_weights() -> None:
    record = tool.measure(_case("test_gemm_all_attributes"), tool.onnx_cgmq)
    assert record == {"plain": "pass", "frozen": True, "gradient": True}
    frozen = tool.frozen(_case("test_gemm_all_attributes"))
    assert [value.name for value in frozen.model.graph.input] == ["a"]
    assert [tensor.name for tensor in frozen.model.graph.initializer] == ["b", "c"]
    assert tool.frozen(_case("test_relu")) is None


def test_sequences_are_given_and_compared() -> None:
    assert tool.outcome(_case("test_sequence_insert_at_back"), tool.onnx_cgmq) == "pass"


def test_wrong_values_refusals_and_lost_gradients_are_told_apart() -> None:
    relu = _case("test_relu")
    wrong = tool.measure(relu, lambda model: lambda inputs: [inputs["x"] + 1])
    assert wrong["plain"].startswith("wrong: ")
    assert wrong["gradient"] is None

    def refuse(model: object) -> None:
        raise ValueError("no\nsuch operator")

    assert tool.outcome(relu, refuse) == "refused: ValueError: no such operator"
    cut = tool.measure(relu, lambda model: lambda inputs: [inputs["x"].detach().relu()])
    assert (cut["plain"], cut["gradient"]) == ("pass", False)
    assert not tool.has_gradient(_case("test_shape"))
