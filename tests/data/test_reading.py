"""Every reader names the file, what it should be, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnx_cgmq.data.damage import DamagedFileError
from onnx_cgmq.data.reading import reading
from onnx_cgmq.errors import DataError


def test_a_missing_file_is_named() -> None:
    path = Path("nowhere.csv")
    said = r"^nowhere\.csv: no such file; check the path$"
    with pytest.raises(DataError, match=said), reading(path, "CSV file"):
        path.read_bytes()


def test_any_error_is_worded() -> None:
    reader = reading(
        Path("x"),
        "sound",
        reason=lambda error: str(error).upper(),
        advice="repair it",
        kind=DamagedFileError,
    )
    said = r"^x: not a readable sound \(BAD\); repair it$"
    with pytest.raises(DamagedFileError, match=said), reader:
        raise RuntimeError("bad")


@pytest.mark.parametrize("error", [DataError("said already"), MemoryError()])
def test_what_is_said_already_stays(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, reading(Path("x"), "sound"):
        raise error
    assert caught.value is error
