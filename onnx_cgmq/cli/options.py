"""The options and the console that several commands share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnx_cgmq.cli import say
from onnx_cgmq.cli.groups import DATA, FILE, LEARNING, SHOWN
from onnx_cgmq.contract.form import Form

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH_OF_FILES = 10_000

DATA_HELP = (
    "An .npz file (arrays named like the inputs, 'label' optional), a folder of them, a folder of "
    "images or sounds, a CSV or Parquet file, lines of text with --tokenizer, an ONNX "
    "test_data_set_* folder or a folder of these, or package.module:factory."
)

ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX file.")]
DataOption = Annotated[
    str, typer.Option("--data", metavar="DATA", help=DATA_HELP, rich_help_panel=DATA)
]
MaxDropOption = Annotated[
    str | None,
    typer.Option(
        "--max-drop",
        metavar="1%",
        rich_help_panel=FILE,
        help="Find the smallest cost at which no more is lost: '1%' of accuracy (with labels), "
        "'2%:class' (classes that differ from the float model's), 'snr:30dB'. With --bound "
        "both are kept, or the bound alone (exit code 9).",
    ),
]
JsonOption = Annotated[
    bool,
    typer.Option(
        "--json",
        help="One JSON document on stdout; all else goes to stderr.",
        rich_help_panel=SHOWN,
    ),
]
LogOption = Annotated[
    Path | None,
    typer.Option(
        "--log", rich_help_panel=SHOWN, metavar="FILE", help="Write progress as JSON lines."
    ),
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", rich_help_panel=SHOWN, help="Show nothing but errors.")
]
SeedOption = Annotated[
    int | None,
    typer.Option(
        "--seed",
        metavar="N",
        rich_help_panel=LEARNING,
        help="Seed of every random choice (default 0).",
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="DEVICE",
        rich_help_panel=LEARNING,
        help="Where to compute: auto, cpu, cuda, cuda:1, mps (default auto).",
    ),
]
DebugOption = Annotated[
    bool,
    typer.Option(
        "--debug",
        help="Show each decision as it is made, and the traceback of an error.",
        rich_help_panel=SHOWN,
    ),
]
TargetOption = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="TARGET",
        help="What the model is made for: a name that 'onnx-cgmq targets' lists, or a TOML file "
        "(default: onnxruntime).",
        rich_help_panel=FILE,
    ),
]
FormOption = Annotated[
    Form | None,
    typer.Option(
        "--form",
        help="How quantized tensors are written (default: the form of the target).",
        rich_help_panel=FILE,
    ),
]
RuntimeOption = Annotated[
    str | None,
    typer.Option(
        "--runtime",
        metavar="REQUIREMENT",
        help="Versions of onnxruntime that are to run the file, such as 'onnxruntime>=1.22' "
        "(default: the installed one).",
        rich_help_panel=FILE,
    ),
]
ReportOption = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE.html",
        help="Write an HTML page with charts too (needs pip install 'onnx-cgmq[report]').",
        rich_help_panel=SHOWN,
    ),
]
ShapeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="INPUT=1x3x224x224",
        help="Shape of an input that leaves sizes open, for one sample; may be repeated.",
        rich_help_panel=DATA,
    ),
]


def parse_widths(text: str | None, option: str = "--widths") -> tuple[int, ...] | None:
    """Reads widths, such as ``"2,4,8"``.

    Raises:
        typer.BadParameter: The text is not a list of numbers.
    """
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is not a list of widths like 2,4,8", param_hint=option
        ) from error


def parse_shapes(texts: list[str] | None) -> dict[str, tuple[int, ...]]:
    """Reads shapes by name, such as ``["image=1x3x224x224"]``.

    Raises:
        typer.BadParameter: A text does not have that form.
    """
    shapes = {}
    for name, text in assignments(texts, "--shape").items():
        try:
            shapes[name] = tuple(int(size) for size in text.split("x"))
        except ValueError as error:
            raise typer.BadParameter(
                f"{text!r} is not a shape like 1x3x224x224", param_hint="--shape"
            ) from error
    return shapes


def assignments(texts: list[str] | None, option: str) -> dict[str, str]:
    """Reads values by name, such as ``["NAME=VALUE"]``; a name may contain ``=``.

    Raises:
        typer.BadParameter: A text does not have that form.
    """
    found = {}
    for text in texts or ():
        name, sign, value = text.rpartition("=")
        if not (name and sign and value):
            raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint=option)
        found[name] = value
    return found


def output_console(*, stderr: bool = False) -> Console:
    """A console for what a command shows: as wide as the terminal.

    It is so wide for a file or pipe that nothing is shortened.
    """
    from rich.console import Console

    width = say.shown_width(err=stderr) or _WIDTH_OF_FILES
    return Console(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Shows on a terminal what is being done while a block runs; elsewhere it shows nothing."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task(what, total=None)
        yield
