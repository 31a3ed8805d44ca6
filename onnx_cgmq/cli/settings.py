"""Settings from a TOML file and from options that may be repeated, as fields of the config."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from onnx_cgmq.cli.options import assignments, parse_widths
from onnx_cgmq.errors import ConfigError
from onnx_cgmq.settings.toml import read_toml

_NAMES = "Names of tensors and nodes, patterns (head/*) and operator types (LSTM) will do"

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="Settings as TOML, named as in Python; options go first."
    ),
]
KeepFloatOption = Annotated[
    list[str] | None,
    typer.Option("--keep-float", metavar="NAME", help=f"Leave these as they are. {_NAMES}."),
]
FixOption = Annotated[
    list[str] | None,
    typer.Option("--fix", metavar="NAME=8", help="Fix a width; names as for --keep-float."),
]
WidthsForOption = Annotated[
    list[str] | None,
    typer.Option(
        "--widths-for",
        metavar="NAME=4,8",
        help="Widths to choose from; names as for --keep-float.",
    ),
]


def read_config(path: Path | None) -> dict[str, Any]:
    """The settings in a TOML file; none without a file.

    Raises:
        ConfigError: It can't be read, or is not TOML.
    """
    return {} if path is None else read_toml(path, "settings file")


def merge(
    file: dict[str, Any], options: dict[str, Any], named: dict[str, dict[str, Any] | list[str]]
) -> dict[str, Any]:
    """One set of settings.

    Args:
        file: From :func:`read_config`.
        options: Settings by name; ``None`` where an option was not given.
        named: Settings with an entry for each name; they add to those of the file.

    Raises:
        ConfigError: The file has something else in their place.
    """
    merged = {**file, **{name: value for name, value in options.items() if value is not None}}
    for setting, entries in named.items():
        before = file.get(setting, type(entries)())
        if isinstance(entries, dict) and isinstance(before, dict):
            merged[setting] = {**before, **entries}
        elif isinstance(entries, list) and isinstance(before, list):
            merged[setting] = [*before, *entries]
        else:
            wanted = "a table" if isinstance(entries, dict) else "a list"
            raise ConfigError(f"settings file: {setting} must be {wanted}, not {before!r}")
    return merged


def parse_fixed(texts: list[str] | None) -> dict[str, int]:
    """``["conv1=8"]`` as widths by name.

    Raises:
        typer.BadParameter: One is not of that form.
    """
    fixed = {}
    for name, text in assignments(texts, "--fix").items():
        if not text.isdecimal():
            raise typer.BadParameter(f"{text!r} is not a width like 8", param_hint="--fix")
        fixed[name] = int(text)
    return fixed


def parse_widths_for(texts: list[str] | None) -> dict[str, tuple[int, ...]]:
    """``["conv1=4,8"]`` as widths by name.

    Raises:
        typer.BadParameter: One is not of that form.
    """
    option = "--widths-for"
    given = assignments(texts, option)
    return {name: parse_widths(text, option) or () for name, text in given.items()}
