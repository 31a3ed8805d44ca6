"""The allocator's settings work where they exist, and are refused quietly elsewhere."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from onnx_cgmq.learn import malloc
from onnx_cgmq.learn.malloc import FreedMemory, freed_memory_kept

SIZE = 64 * 2**20
FREES_BLOCKS = f"""
import contextlib, ctypes, resource, runpy, sys

kept = runpy.run_path({malloc.__file__!r})["freed_memory_kept"]
libc = ctypes.CDLL(None)
libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

def free_a_block():
    block = libc.malloc({SIZE})
    ctypes.memset(block, 1, {SIZE})  # now it has pages
    libc.free(block)

before = resident()
with kept():
    free_a_block()
    inside = resident()
after = resident()
free_a_block()
print(inside - before, after - before, resident() - before)
"""


def _growth(**environment: str) -> list[int]:
    """Memory after a block was freed, within the setting, after it, and once more afterwards."""
    command = [sys.executable, "-c", FREES_BLOCKS]
    found = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )
    return [int(number) for number in found.stdout.split()]


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc",
    reason="the settings are those of glibc",
)
def test_a_freed_block_stays_in_the_process_until_the_end() -> None:
    inside, after, later = _growth()
    assert inside > 0.9 * SIZE
    assert max(after, later) < 0.1 * SIZE
    assert max(_growth(MALLOC_ARENA_MAX="2")) < 0.1 * SIZE  # the user's settings stay


class Libc:
    """A C library that keeps the calls made to it."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, ...]] = []

    def mallopt(self, parameter: int, value: int) -> int:
        self.calls.append((parameter, value))
        return 1

    def malloc_trim(self, pad: int) -> int:
        self.calls.append((pad,))
        return 1


@pytest.fixture
def libc(monkeypatch) -> Libc:
    library = Libc()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    return library


def test_thresholds_are_set_and_set_back_after_an_error_too(libc: Libc) -> None:
    within: list[tuple[int, ...]] = []

    @freed_memory_kept()
    def fails() -> None:
        within.extend(libc.calls)
        raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert within[0] == (-3, 2**31 - 1)
    assert all(0 < value < 2**31 for _, value in within)
    changed = [parameter for parameter, _ in within]
    assert libc.calls[len(within) :] == [*((p, 128 << 10) for p in changed), (0,)]


def test_a_process_that_grows_by_too_much_gives_back_what_is_free(libc: Libc, monkeypatch) -> None:
    monkeypatch.setattr(malloc, "_MOST_KEPT", 10)
    sizes = iter([100, 110, 111, 105, 115, 116, 116])
    monkeypatch.setattr(malloc, "_resident_bytes", lambda: next(sizes))
    freed = FreedMemory()  # 100 bytes remain
    given_back = []
    for _ in range(4):  # 110; 111, of which 105 remain; 115; 116, of which 116 remain
        libc.calls.clear()
        freed.limit()
        given_back.append(len(libc.calls))
    assert given_back == [0, 1, 0, 1]


def test_the_memory_of_a_process_is_told_where_linux_tells_it() -> None:
    if sys.platform.startswith("linux"):
        assert malloc._resident_bytes() > 1 << 20


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_an_allocator_that_the_user_sets_is_left_alone(libc: Libc, monkeypatch, name) -> None:
    monkeypatch.setenv(name, "1")
    with freed_memory_kept():
        pass
    assert not libc.calls


def test_nothing_happens_on_other_systems(libc: Libc, monkeypatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with freed_memory_kept():
        pass
    assert not libc.calls


def test_nothing_happens_with_other_allocators(monkeypatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")

    def fail(_: object) -> None:
        raise OSError("no libc")

    for library in (lambda _: SimpleNamespace(), fail):
        monkeypatch.setattr(ctypes, "CDLL", library)
        entered = False
        with freed_memory_kept():
            entered = True
        assert entered
