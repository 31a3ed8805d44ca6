"""What several commands have: options, and where they print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH_OF_FILES = 160

DATA_HELP = (
    "An .npz file (arrays named like the inputs, 'label' optional), a folder of them, an ONNX "
    "test_data_set_* folder or a folder of these, or package.module:factory."
)

ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX file.")]
DataOption = Annotated[str, typer.Option("--data", metavar="DATA", help=DATA_HELP)]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON document on stdout; all else goes to stderr.")
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def parse_widths(text: str | None) -> tuple[int, ...] | None:
    """``"2,4,8"`` as numbers.

    Raises:
        typer.BadParameter: They are not numbers.
    """
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is not a list of widths like 2,4,8", param_hint="--widths"
        ) from error


def output_console(*, stderr: bool = False) -> Console:
    """A console for tables; into files and pipes they are wide, so that names stay whole."""
    from rich.console import Console

    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=_WIDTH_OF_FILES)
