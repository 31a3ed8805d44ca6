"""Reads settings from a TOML file and from options that may be repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from onnx_cgmq.cli.groups import FILE, WIDTHS
from onnx_cgmq.cli.options import assignments, parse_widths
from onnx_cgmq.errors import ConfigError
from onnx_cgmq.settings.config import PlanUse
from onnx_cgmq.settings.toml import read_toml

_NAMES = "NAME is a tensor, a node, a pattern (head/*) or an operator type (LSTM)"

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Read settings, named as in Python, from a TOML file, also bound, data and output; "
        "options override it.",
        rich_help_panel=FILE,
    ),
]
KeepFloatOption = Annotated[
    list[str] | None,
    typer.Option(
        "--keep-float",
        metavar="NAME",
        help=f"Keep NAME float. {_NAMES}. May be repeated.",
        rich_help_panel=WIDTHS,
    ),
]
FixOption = Annotated[
    list[str] | None,
    typer.Option(
        "--fix",
        metavar="NAME=8",
        help="Fix the width of NAME, which is as for --keep-float. May be repeated.",
        rich_help_panel=WIDTHS,
    ),
]
WidthsForOption = Annotated[
    list[str] | None,
    typer.Option(
        "--widths-for",
        metavar="NAME=4,8",
        help="Widths that NAME may have; NAME is as for --keep-float. May be repeated.",
        rich_help_panel=WIDTHS,
    ),
]
PlanOption = Annotated[
    Path | None,
    typer.Option(
        "--plan",
        metavar="FILE",
        rich_help_panel=WIDTHS,
        help="Take widths and ranges from FILE: a plan (NAME.plan.json), encodings of AIMET, or "
        "TensorQuantOverrides of onnxruntime.",
    ),
]
PlanUseOption = Annotated[
    PlanUse | None,
    typer.Option(
        "--plan-use",
        metavar="fix|start",
        rich_help_panel=WIDTHS,
        help="What to do with the widths of --plan: fix them (default), or start from them.",
    ),
]


def read_config(path: Path | None) -> dict[str, Any]:
    """Reads the settings in a TOML file; there are none without a file.

    Raises:
        ConfigError: The file can't be read, or is not TOML.
    """
    return {} if path is None else read_toml(path, "settings file")


def take_texts(
    settings: dict[str, Any], name: str, option: str, given: list[str], *, needed: bool = True
) -> list[str]:
    """Takes what the command needs beside the settings: from its options, else from the file.

    Args:
        settings: From :func:`read_config`; the name is removed from it.
        name: The name in the file: one text, or a list of them.
        option: The option of the same meaning.
        given: What was given with that option.
        needed: Whether there must be one.

    Raises:
        ConfigError: It is needed and neither has it, or the file has something else than text.
    """
    found = settings.pop(name, [])
    texts = [found] if isinstance(found, str) else found
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        raise ConfigError(f"settings file: {name} must be text, not {found!r}")
    if needed and not given and not texts:
        raise ConfigError(f"{option} is missing; give it, or '{name}' in the file of --config")
    return given or texts


def take_text(settings: dict[str, Any], name: str, option: str, given: str | None) -> str:
    """Takes one text as :func:`take_texts` does.

    Raises:
        ConfigError: Neither the option nor the file has it, or the file has something else.
    """
    texts = take_texts(settings, name, option, [] if given is None else [given])
    if len(texts) > 1:
        raise ConfigError(f"settings file: {name} must be one text, not {texts!r}")
    return texts[0]


def merge(
    file: dict[str, Any], options: dict[str, Any], named: dict[str, dict[str, Any] | list[str]]
) -> dict[str, Any]:
    """Merges the settings of a file and of options, which override those of the file.

    Args:
        file: From :func:`read_config`.
        options: Settings by name; ``None`` if an option was not given.
        named: Settings with an entry for each name; these entries are added to those of the file.

    Raises:
        ConfigError: The file has a value of another type for one of ``named``.
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
    """Reads one width for each name, such as ``["conv1=8"]``.

    Raises:
        typer.BadParameter: A text does not have that form.
    """
    fixed = {}
    for name, text in assignments(texts, "--fix").items():
        if not text.isdecimal():
            raise typer.BadParameter(f"{text!r} is not a width like 8", param_hint="--fix")
        fixed[name] = int(text)
    return fixed


def parse_widths_for(texts: list[str] | None) -> dict[str, tuple[int, ...]]:
    """Reads the widths for each name, such as ``["conv1=4,8"]``.

    Raises:
        typer.BadParameter: A text does not have that form.
    """
    option = "--widths-for"
    given = assignments(texts, option)
    return {name: parse_widths(text, option) or () for name, text in given.items()}
