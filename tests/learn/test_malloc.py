"""The allocator's settings work where they exist, and are refused quietly elsewhere."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from onnx_cgmq.learn import malloc
from onnx_cgmq.learn.malloc import keep_freed_memory

SIZE = 64 * 2**20
FREES_A_BLOCK = f"""
import ctypes, resource, runpy, sys

keep_freed_memory = runpy.run_path({malloc.__file__!r})["keep_freed_memory"]
if sys.argv[1] == "keep":
    assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
block = libc.malloc({SIZE})
ctypes.memset(block, 1, {SIZE})  # now it has pages
libc.free(block)
pages = int(open("/proc/self/statm").read().split()[1])
print(pages * resource.getpagesize())
"""


def _resident_bytes(setting: str) -> int:
    """Memory of an interpreter after it has freed a block of :data:`SIZE` bytes."""
    command = [sys.executable, "-c", FREES_A_BLOCK, setting]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc",
    reason="the settings are those of glibc",
)
def test_a_freed_block_stays_in_the_process() -> None:
    assert _resident_bytes("keep") - _resident_bytes("default") > 0.9 * SIZE


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
