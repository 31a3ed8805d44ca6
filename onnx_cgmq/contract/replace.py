"""Files that are written whole or not at all, and never in place of anything but a file."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onnx_cgmq.errors import OutputError

PART_PREFIX = ".onnx-cgmq-"
"""How the names of unfinished files begin. They don't grow with the name of the final file."""


@contextmanager
def replaced(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives the path of an empty file, which takes the place of ``path`` at the end.

    Until then, and if the block fails, the file at ``path`` stays as it was. If ``path`` is a link,
    the file that it leads to is replaced, and the link stays.

    Raises:
        OutputError: The file can't be written, or ``path`` is a folder, device, FIFO or socket.
    """
    target = regular_file(path)
    part: Path | None = None
    try:
        # torch writes to no hidden file without a suffix.
        descriptor, name = tempfile.mkstemp(".part", PART_PREFIX, target.parent)
        os.close(descriptor)
        part = Path(name)
        yield part
        part.chmod(_default_mode())  # mkstemp makes files that only their owner can read
        os.replace(part, target)
    except OSError as error:
        raise OutputError(
            f"can't write {path}: {error.strerror or error}; "
            "check its folder, permissions and free space"
        ) from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def regular_file(path: str | os.PathLike[str]) -> Path:
    """Returns where a file is really written: links are followed, those that lead nowhere too.

    Raises:
        OutputError: There is something else than a file, or the path can't be one.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = stat.S_IFREG  # it will be one
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise OutputError(f"can't write {path}: {reason}; write to another file") from error
    if stat.S_ISDIR(mode):
        raise OutputError(f"{path} is a folder; give the name of a file to write")
    if not stat.S_ISREG(mode):
        raise OutputError(
            f"{path} is no file but a {_kind(mode)}, which is left alone; give the name of a file"
        )
    return Path(os.path.realpath(path))


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISFIFO, "FIFO (pipe)"), (stat.S_ISSOCK, "socket"))
    return next((name for is_kind, name in kinds if is_kind(mode)), "device")


def _default_mode() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
