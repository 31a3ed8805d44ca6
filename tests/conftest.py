"""Each test computes with one thread, and draws the same random numbers wherever it runs.

The tensors of the tests are tiny: threads would only wait for each other, and the workers of
pytest-xdist would take each other's cores. torch and numpy read the variable when they are
imported, which is after pytest has read this file; so do the interpreters that tests start.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

os.environ["OMP_NUM_THREADS"] = "1"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-screens",
        action="store_true",
        help="Write tests/cli/screens anew, instead of comparing with it.",
    )


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    """torch has one generator in each process: tests must not depend on what ran before them."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def usual_steps() -> Iterator[Mapping[Any, tuple[int, int]]]:
    """Parts of the tests' models learn in a few steps; yields how many they usually have."""
    from onnx_cgmq.learn import schedule

    usual = schedule.STEPS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "STEPS", dict.fromkeys(usual, (4, 20)))
        yield usual
