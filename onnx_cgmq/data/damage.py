"""Files of a large set that can't be read: a few are left out, with a note."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from onnx_cgmq.errors import DataError

FEW: Final = 20
"""One file in so many may be damaged. Our choice."""

_MOST_NAMES: Final = 5


class DamagedFileError(DataError):
    """A file of a set, each with one sample, that can't be read."""


def check_few(damaged: Sequence[DamagedFileError], files: int) -> None:
    """Refuses a set with too many damaged files.

    Args:
        damaged: What was found so far.
        files: Number of all files.

    Raises:
        DataError: They are too many; the message names the first.
    """
    if len(damaged) * FEW > files:
        more = f", and {len(damaged) - 1} more before it" if len(damaged) > 1 else ""
        raise DataError(
            f"{damaged[-1]}{more}; repair or remove it (of {files} files, only one in {FEW} may be "
            "damaged)"
        ) from damaged[-1]


def damage_note(damaged: Sequence[DamagedFileError], files: int) -> str:
    """A sentence on the files that were left out."""
    shown = "; ".join(map(str, damaged[:_MOST_NAMES]))
    more = f"; and {len(damaged) - _MOST_NAMES} more" if len(damaged) > _MOST_NAMES else ""
    return f"{len(damaged)} of {files} files are damaged and left out: {shown}{more}"
