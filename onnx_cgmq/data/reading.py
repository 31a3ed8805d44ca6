"""Words what goes wrong while a file of a user is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from onnx_cgmq.errors import DataError


@contextmanager
def reading(
    path: Path,
    what: str,
    *,
    reason: Callable[[Exception], str] = str,
    advice: str = "",
    kind: type[DataError] = DataError,
) -> Iterator[None]:
    """Makes an error of any kind in the block one that names the file.

    Args:
        path: The file that the block reads.
        what: What the file should be, such as ``CSV file``.
        reason: Words an error.
        advice: What to do next, if anything helps but another file.
        kind: The error to raise.

    Raises:
        DataError: There is no such file, or the block raised something else than this.
    """
    try:
        yield
    except (DataError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise kind(f"{path}: no such file; check the path") from error
    except Exception as error:  # of the kind that the damage makes it
        more = advice and f"; {advice}"
        raise kind(f"{path}: not a readable {what} ({reason(error)}){more}") from error
