"""Finds a target: a built-in one by its name, the user's own by its file."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from onnx_cgmq.errors import ConfigError
from onnx_cgmq.settings.target import Target
from onnx_cgmq.settings.toml import problems, read_toml

DEFAULT_TARGET: Final = "onnxruntime"

TargetLike = str | os.PathLike[str] | Mapping[str, Any] | Target
"""The name of a built-in target, the path of a TOML file, the content of one, or a target."""

_FOLDER: Final = Path(__file__).parent / "targets"
_SUFFIX: Final = ".toml"


def built_in_targets() -> tuple[str, ...]:
    """The names of the targets that come with onnx-cgmq."""
    return tuple(sorted(path.stem for path in _FOLDER.glob(f"*{_SUFFIX}")))


def load_target(target: TargetLike) -> Target:
    """Finds a target by its name, or reads it from a TOML file.

    Args:
        target: The name of a built-in target; the path of a file (a string with a folder or the
            suffix ``.toml``); the content of such a file; or a target, which is returned as it is.

    Raises:
        ConfigError: There is no such target, or the file can't be read or is not a target.
    """
    if isinstance(target, Target):
        return target
    if isinstance(target, Mapping):
        return _validated(target, f"target {target.get('name', '')!r}")
    path = _path(target)
    return _validated({"name": path.stem, **read_toml(path, "target")}, f"target {path}")


def target_text(target: str | os.PathLike[str]) -> str:
    """The TOML text of a target, with its comments.

    Args:
        target: The name of a built-in target, or the path of a file.

    Raises:
        ConfigError: There is no such target, or the file can't be read or is not a target.
    """
    load_target(target)
    return _path(target).read_text(encoding="utf-8")


def _validated(fields: Mapping[str, Any], what: str) -> Target:
    """Makes a target of its fields.

    Raises:
        ConfigError: A field is missing, unknown or wrong.
    """
    try:
        return Target.model_validate(fields)
    except ValidationError as error:
        raise ConfigError(
            f"{what}: {problems(error)}; 'onnx-cgmq targets {DEFAULT_TARGET}' shows a valid one"
        ) from error


def _path(target: Any) -> Path:
    """The path of a target's file.

    Raises:
        ConfigError: The target is not a path, and no built-in target has that name.
    """
    if isinstance(target, os.PathLike):
        return Path(target)
    if not isinstance(target, str):
        raise ConfigError(f"target {target!r} is not a name, the path of a TOML file or a Target")
    if target.endswith(_SUFFIX) or os.sep in target or "/" in target:
        return Path(target)
    names = built_in_targets()
    if target in names:
        return _FOLDER / f"{target}{_SUFFIX}"
    similar = difflib.get_close_matches(target, names, n=1, cutoff=0.4)
    hint = f"did you mean '{similar[0]}'? " if similar else ""
    raise ConfigError(
        f"there is no target '{target}'; {hint}The built-in targets are {', '.join(names)}; for "
        f"your own target give the path of its {_SUFFIX} file"
    )
