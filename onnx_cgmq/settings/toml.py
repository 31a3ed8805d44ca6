"""Reads TOML files, and words the problems that pydantic finds in their content."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from onnx_cgmq.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Reads a TOML file.

    Args:
        path: The file.
        what: What the file is, for the message.

    Raises:
        ConfigError: The file can't be read, or is not TOML.
    """
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise ConfigError(f"{what} {path} can't be read: {error}") from error
    return content


def problems(error: ValidationError) -> str:
    """Says on one line what is wrong, field by field."""
    return "; ".join(
        ": ".join(
            part
            for part in (
                ".".join(map(str, item["loc"])),
                item["msg"].removeprefix("Value error, "),
            )
            if part
        )
        for item in error.errors()
    )
