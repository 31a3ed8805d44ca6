"""A few damaged files of the fuzzer, and that it finds what is wrong."""

from __future__ import annotations

import onnx
import pytest

from tools.fuzz import inspect as fuzz_inspect


@pytest.mark.slow
def test_damaged_files_are_read_or_refused() -> None:
    outcomes = fuzz_inspect.run(60)
    assert set(outcomes) == {"read", "refused", "no message"}


@pytest.mark.parametrize("error", [KeyError("w"), MemoryError(), RecursionError("deep")])
def test_other_errors_are_found(error) -> None:
    def read(model: onnx.ModelProto) -> None:
        raise error

    assert type(error).__name__ in fuzz_inspect.check(b"", read)
