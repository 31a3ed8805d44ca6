"""A few networks of the fuzzer, that it finds what is wrong, and that its networks repeat."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "tools"))

import fuzz_kernels
from fuzz_graphs import random_network

from onnx_cgmq.graph.kernels import Kernel


@pytest.mark.parametrize("case", [2, 3, 114])
def test_right(case) -> None:
    outcome = fuzz_kernels.examine(case)
    assert (outcome.verdict, list(outcome.problems)) == ("right", [])
    assert sum(outcome.kernels.values()) > 0


def test_the_same_number_gives_the_same_network() -> None:
    (one, x), (other, y) = random_network(7), random_network(7)
    assert one.SerializeToString() == other.SerializeToString()
    assert np.array_equal(x["x"], y["x"])


def test_wrong_predictions_are_found(monkeypatch) -> None:
    predict = fuzz_kernels.ort_kernels

    def mistaken(tensors):
        return {n: replace(c, kernel=Kernel.FLOAT, reason="") for n, c in predict(tensors).items()}

    monkeypatch.setattr(fuzz_kernels, "ort_kernels", mistaken)
    outcome = fuzz_kernels.examine(3)
    assert outcome.verdict == "wrong"
    assert "predicted float (), runs as" in outcome.problems[0]
