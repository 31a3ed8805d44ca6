"""Finds a target: built in by name, a user's own by file."""

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

DEFAULT_TARGET: Final = "generic"

TargetLike = str | os.PathLike[str] | Mapping[str, Any] | Target
"""Name of a built-in target, path of a TOML file, what such a file holds, or a target."""

_FOLDER: Final = Path(__file__).parent / "targets"
_SUFFIX: Final = ".toml"


def built_in_targets() -> tuple[str, ...]:
    """Names of the targets that come with onnx-cgmq."""
    return tuple(sorted(path.stem for path in _FOLDER.glob(f"*{_SUFFIX}")))


def load_target(target: TargetLike) -> Target:
    """A target by its name, or from a TOML file.

    Args:
        target: Name of a built-in target, path of a file (a text with a folder or the suffix
            ``.toml`` is one), what such a file holds, or a target, which is returned as it is.

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
    """A target as TOML, with its comments; arguments and errors as for :func:`load_target`."""
    load_target(target)
    return _path(target).read_text(encoding="utf-8")


def _validated(fields: Mapping[str, Any], what: str) -> Target:
    """The target with these fields.

    Raises:
        ConfigError: They are wrong.
    """
    try:
        return Target.model_validate(fields)
    except ValidationError as error:
        raise ConfigError(
            f"{what}: {problems(error)}; 'onnx-cgmq targets generic' shows one that is right"
        ) from error


def _path(target: Any) -> Path:
    """The file of a target.

    Raises:
        ConfigError: It is no path, and no built-in target has that name.
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
        f"there is no target '{target}'; {hint}built in are {', '.join(names)}; for one of your "
        f"own give the path of its {_SUFFIX} file"
    )
