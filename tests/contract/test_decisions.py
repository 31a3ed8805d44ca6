from __future__ import annotations

import logging

from onnx_cgmq.contract.decisions import Decision, Verdict, collected_decisions, decide


def test_a_decision_is_a_sentence() -> None:
    because = Decision("conv1", Verdict.FLOAT, "its bias is not constant")
    assert str(because) == "'conv1' stays float, because its bias is not constant"
    assert str(Decision("conv1", Verdict.INTEGER)) == "'conv1' runs in integers"


def test_decisions_are_collected_within_the_context_only() -> None:
    decide("before", Verdict.FLOAT)
    with collected_decisions() as found:
        decide("a", Verdict.FLOAT, "one")
        with collected_decisions() as inner:
            decide("b", Verdict.LEFT)
        decide("c", Verdict.REWRITTEN)
    decide("after", Verdict.FLOAT)
    assert [decision.name for decision in found] == ["a", "c"]
    assert inner == [Decision("b", Verdict.LEFT)]


def test_decisions_are_logged_at_debug_level(caplog) -> None:
    with caplog.at_level(logging.INFO, logger="onnx_cgmq"):
        decide("quiet", Verdict.FLOAT)
    with caplog.at_level(logging.DEBUG, logger="onnx_cgmq"):
        decide("a", Verdict.LEFT, "it computes on integers")
    assert caplog.messages == ["'a' is left as it is, because it computes on integers"]
    assert caplog.records[0].name == "onnx_cgmq.decisions"
