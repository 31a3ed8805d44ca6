"""Code that the user gives (a factory, a reader, a loss): what it raises is an error of its own."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from onnx_cgmq.errors import CgmqError, DataError

_LONGEST_MESSAGE = 500

_NOT_THE_USERS: Final = (
    "<frozen ",
    str(Path(__file__).parents[1]),
    *{sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")},
)
"""How the file names of code begin that the user has not written."""


@contextmanager
def user_code(what: str, error_type: type[CgmqError]) -> Iterator[None]:
    """Runs code of the user in the block, and says so if it fails.

    Ctrl-C, a lack of memory and errors of this package pass as they are.

    Args:
        what: What the code is, for the message ("the data factory f").
        error_type: The error to raise instead; what was raised is its cause.

    Raises:
        CgmqError: Of ``error_type``: the block raised an exception, or wanted to end the program.
    """
    try:
        yield
    except (CgmqError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        message = " ".join(str(error).split())[:_LONGEST_MESSAGE]
        raise error_type(
            f"{what} failed with {type(error).__name__}: {message or 'no message'}"
            f"{_place(error)}; this is code of yours, so correct it there"
        ) from error


def user_items(items: Iterable[Any], where: str) -> Iterator[Any]:
    """Yields the items of something that the user gives to be iterated over.

    Raises:
        DataError: It fails, at its begin or later.
    """
    with user_code(where, DataError):
        iterator = iter(items)
    end = object()
    count = 0
    while True:
        with user_code(f"{where}, after {count} batches,", DataError):
            item = next(iterator, end)
        if item is end:
            return
        yield item
        count += 1


def _place(error: BaseException) -> str:
    """Returns the last line that ran of code which is neither ours nor a library's, if any."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(_NOT_THE_USERS):
            return f" ({frame.filename}, line {frame.lineno}, in {frame.name})"
    return ""
