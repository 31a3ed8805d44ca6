"""A few networks of the fuzzer, that it finds what is wrong, and that its networks repeat."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnx_cgmq.gating.predicted_kernels import Kernel
from onnx_cgmq.writing.write_back import write
from tools.fuzz import kernels
from tools.fuzz.graphs import random_network


@pytest.mark.parametrize("case", [2, 3, 7, 15, 114])
def test_right(case) -> None:
    outcome = kernels.examine(case)
    assert (outcome.verdict, list(outcome.problems)) == ("right", [])
    assert sum(outcome.kernels.values()) > 0


def test_a_float_model_that_cannot_run_is_refused() -> None:
    outcome = kernels.examine(158)
    assert outcome.verdict == "refused"
    assert outcome.problems[0].startswith("the float model can't run")


def test_the_same_number_gives_the_same_network() -> None:
    (one, x), (other, y) = random_network(7), random_network(7)
    assert one.SerializeToString() == other.SerializeToString()
    assert np.array_equal(x["x"], y["x"])


def test_wrong_predictions_are_found(monkeypatch) -> None:
    def mistaken(*arguments, **options):
        written = write(*arguments, **options)
        wrong = {n: replace(c, kernel=Kernel.FLOAT, reason="") for n, c in written.kernels.items()}
        return replace(written, kernels=wrong)

    monkeypatch.setattr(kernels, "write", mistaken)
    outcome = kernels.examine(3)
    assert outcome.verdict == "wrong"
    assert "predicted float (), runs as" in outcome.problems[0]
