"""A run gives the same whatever state torch and numpy are in, and leaves them as they were."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from onnx_cgmq import Guide, Mirror, Result, calibrate, insert_gates, prepare, quantize, verify
from onnx_cgmq.data import open_data
from onnx_cgmq.errors import ConfigError
from onnx_cgmq.learn.losses import teacher_loss
from onnx_cgmq.settings.config import Config
from tests.support.toys import mlp, toy_data

pytestmark = pytest.mark.slow


@contextmanager
def changed(set_state: Callable[[Any], Any], value: Any, before: Any) -> Iterator[None]:
    set_state(value)
    try:
        yield
    finally:
        set_state(before)


STATES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "float64": lambda: changed(torch.set_default_dtype, torch.float64, torch.float32),
    "float16": lambda: changed(torch.set_default_dtype, torch.float16, torch.float32),
    "a device for a block": lambda: torch.device("meta"),
    "another default device": lambda: changed(torch.set_default_device, "meta", None),
    "grad off": lambda: changed(torch.set_grad_enabled, False, True),
    "fast products": lambda: changed(torch.set_float32_matmul_precision, "medium", "highest"),
    "numpy raises": lambda: np.errstate(all="raise"),
    "deterministic": lambda: changed(torch.use_deterministic_algorithms, True, False),
}


def state() -> tuple[Any, ...]:
    """All that a caller might notice."""
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_float32_matmul_precision(),
        torch.get_num_threads(),
        torch.get_num_interop_threads(),
        torch.default_generator.get_state().cpu().numpy().tobytes(),
        str(np.random.get_state()),
        random.getstate(),
        np.geterr(),
    )


def run() -> Result:
    return quantize(mlp(), toy_data(mlp()), "4%", epochs=2)


@pytest.fixture(scope="module")
def plain() -> Result:
    return run()


@pytest.mark.parametrize("name", STATES)
def test_a_run_in_any_state(name: str, plain: Result) -> None:
    with STATES[name]():
        before = state()
        result = run()
        check = verify(result.mirror, result.model, toy_data(mlp()))
        assert state() == before
    assert result.plan.to_json() == plain.plan.to_json()
    assert result.outcome == plain.outcome
    assert check == verify(plain.mirror, plain.model, toy_data(mlp()))


@pytest.mark.parametrize("name", STATES)
def test_the_steps_in_any_state(name: str) -> None:
    def steps(around: ExitStack | AbstractContextManager[Any]) -> tuple[str, torch.Tensor]:
        """Builds in the state, learns outside of it, writes a plan in it."""
        model = prepare(mlp())
        data = open_data(toy_data(mlp()), model)
        x = torch.from_numpy(toy_data(mlp())["x"])
        with around:
            before = state()
            teacher, mirror = Mirror(model), Mirror(insert_gates(model, Config()))
            calibrate(mirror, data)
            guide = Guide(mirror, "4%", steps=4)
            outputs = mirror(x)["y"]
            assert state() == before
        optimizer = torch.optim.Adam(mirror.parameters(), 1e-3)
        for _ in range(4):
            optimizer.zero_grad()
            teacher_loss(None, mirror(x), teacher(x)).backward()
            optimizer.step()
            guide.step()
        with STATES[name]():
            guide.settle()
            text = guide.plan().to_json()
            mirror.to_model()
        return text, outputs.detach().clone()

    (text, outputs), (wanted_text, wanted) = steps(STATES[name]()), steps(ExitStack())
    assert text == wanted_text
    assert outputs.dtype is torch.float32
    assert torch.equal(outputs, wanted)


def test_errors_leave_the_state_as_it_was() -> None:
    def fails(*_: Any) -> None:
        raise KeyError("the loss")

    with torch.no_grad(), changed(torch.set_default_dtype, torch.float64, torch.float32):
        before = state()
        with pytest.raises(ConfigError):
            quantize(mlp(), toy_data(mlp()), "4%", epochs=1, loss=fails)
        assert state() == before
