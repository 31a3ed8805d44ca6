"""Settings of glibc's allocator are changed where it exists; elsewhere nothing happens."""

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


def test_keep_freed_memory_sets_thresholds_of_glibc(calls) -> None:
    assert keep_freed_memory()
    assert (-3, 2**31 - 1) in calls
    assert all(0 < value < 2**31 for _, value in calls)


def test_keep_freed_memory_is_false_if_a_setting_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=lambda *_: 0))
    assert not keep_freed_memory()


def test_keep_freed_memory_does_nothing_on_other_systems(calls, monkeypatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
    assert not calls


def test_keep_freed_memory_does_nothing_with_other_allocators(monkeypatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    assert not keep_freed_memory()

    def fail(_: object) -> None:
        raise OSError("no libc")

    monkeypatch.setattr(ctypes, "CDLL", fail)
    assert not keep_freed_memory()
