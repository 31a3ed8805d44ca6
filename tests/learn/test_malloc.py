"""The allocator's settings are asked for where they exist, and refused quietly elsewhere."""

from __future__ import annotations

import ctypes
import sys
from types import SimpleNamespace

import pytest

from onnx_cgmq.learn.malloc import keep_freed_memory


@pytest.fixture
def calls(monkeypatch) -> list[tuple[int, int]]:
    made: list[tuple[int, int]] = []

    def mallopt(parameter: int, value: int) -> int:
        made.append((parameter, value))
        return 1

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    return made


def test_large_buffers_stay_in_the_process(calls) -> None:
    assert keep_freed_memory()
    assert (-3, 2**31 - 1) in calls
    assert all(0 < value < 2**31 for _, value in calls)


def test_a_refused_setting_is_told(monkeypatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=lambda *_: 0))
    assert not keep_freed_memory()


def test_other_systems_are_left_alone(calls, monkeypatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
    assert not calls


def test_other_libraries_are_left_alone(monkeypatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    assert not keep_freed_memory()

    def fail(_: object) -> None:
        raise OSError("no libc")

    monkeypatch.setattr(ctypes, "CDLL", fail)
    assert not keep_freed_memory()
