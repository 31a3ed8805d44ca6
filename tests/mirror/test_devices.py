"""The device of a run: which one a setting names, and what is said where there is none."""

from __future__ import annotations

import pytest
import torch

from onnx_cgmq.errors import ConfigError
from onnx_cgmq.learn.memory import available_bytes
from onnx_cgmq.mirror.devices import chosen_device
from onnx_cgmq.settings.config import Config


@pytest.fixture
def machine(monkeypatch):
    def make(gpus: int = 0, apple: bool = False, built: str | None = "12.8") -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.version, "cuda", built)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: apple)

    return make


@pytest.mark.parametrize(
    ("gpus", "apple", "name"), [(0, False, "cpu"), (0, True, "mps"), (2, True, "cuda")]
)
def test_auto_takes_the_best_that_there_is(machine, gpus, apple, name) -> None:
    machine(gpus, apple)
    assert chosen_device("auto") == torch.device(name)


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:1"])
def test_a_device_that_there_is_can_be_named(machine, name) -> None:
    machine(gpus=2)
    assert chosen_device(name) == torch.device(name)


@pytest.mark.parametrize(
    ("name", "has", "says"),
    [
        ("cuda", {"built": None}, "built without CUDA"),
        ("cuda", {}, "finds no GPU"),
        ("cuda:1", {"gpus": 1}, "has 1 GPU, counted from 0"),
        ("mps", {"gpus": 1}, "no GPU of Apple"),
    ],
)
def test_a_device_that_there_is_not_is_refused(machine, name, has, says) -> None:
    machine(**has)
    with pytest.raises(ConfigError, match=f"device '{name}': .*{says}.*; choose another device"):
        chosen_device(name)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "CPU", ""])
def test_an_unknown_device_is_no_setting(name) -> None:
    with pytest.raises(ConfigError, match="device: it must be auto, cpu, cuda"):
        Config.create(device=name)


def test_the_memory_of_a_gpu_is_what_is_free_there(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1000, 5000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 300)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 200)
    assert available_bytes(torch.device("cuda", 0)) == 1100
