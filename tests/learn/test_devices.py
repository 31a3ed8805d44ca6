"""Whole runs on a device without hardware: nothing is left on the CPU, and plans are the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from onnx_cgmq.api.pipeline import quantize
from onnx_cgmq.contract.events import EpochDone, Event
from onnx_cgmq.contract.plan import BitPlan
from onnx_cgmq.learn import opened_run, schedule
from onnx_cgmq.mirror import devices
from tests.support.guarded_device import guarded_device
from tests.support.plans import assert_same_plan
from tests.support.toys import convnet, toy_data

pytestmark = pytest.mark.slow

STEPS = dict.fromkeys(schedule.STEPS, (4, 4))
"""The device is slow."""

SETTINGS: dict[str, dict[str, Any]] = {
    "stages": {"exact_steps": True},
    "gates of channels": {"epochs": 2, "granularity": "channel", "prune": True, "batch_size": 48},
    "gates of elements": {"epochs": 2, "target": "generic", "granularity": "element"},
}


@pytest.fixture(autouse=True, scope="module")
def _fewest_steps() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "STEPS", STEPS)
        yield


def _in_guarded_process() -> None:
    """Makes a process compute on the device, before its first backward pass."""
    device = guarded_device()
    for module in (devices, opened_run):
        module.chosen_device = lambda setting: device
    schedule.STEPS = STEPS


@pytest.fixture(scope="module")
def guarded() -> Iterator[ProcessPoolExecutor]:
    context = get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=_in_guarded_process) as pool:
        yield pool


def _plan(
    progress: Callable[[Event], None] | None = None,
    output: Path | None = None,
    resume: bool = False,
    **settings: Any,
) -> BitPlan:
    model = convnet()
    settings = {"bound": "3%", "widths": (2, 4, 8), "batch_size": 24, **settings}
    files = {"output": output, "resume": resume}
    return quantize(model, toy_data(model, 60), progress=progress, **files, **settings).plan


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_run_there_gives_the_plan_of_a_run_on_the_cpu(
    settings: dict[str, Any], guarded: ProcessPoolExecutor
) -> None:
    assert_same_plan(guarded.submit(_plan, **settings).result(), _plan(**settings))


@pytest.mark.parametrize("direction", ["fisher", "gradient_times_magnitude"])
def test_a_run_that_began_on_the_cpu_goes_on_there(
    direction: str, guarded: ProcessPoolExecutor, tmp_path: Path
) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, EpochDone):
            raise KeyboardInterrupt

    whole = _plan(epochs=2, direction=direction)
    output = tmp_path / "out.onnx"
    _plan(stop, output, epochs=2, direction=direction)
    resumed = guarded.submit(_plan, None, output, True, epochs=2, direction=direction).result()
    assert_same_plan(resumed, whole)
