"""The commands of ``onnx-cgmq``. Heavy imports wait until a command runs."""

from __future__ import annotations

from typing import Annotated

import typer

from onnx_cgmq import __version__
from onnx_cgmq.cli.bench import bench_command
from onnx_cgmq.cli.check import inspect_command, verify_command
from onnx_cgmq.cli.curve import curve_command
from onnx_cgmq.cli.quantize import quantize_command
from onnx_cgmq.cli.sensitivity import sensitivity_command
from onnx_cgmq.cli.targets import targets_command

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("quantize")(quantize_command)
app.command("curve")(curve_command)
app.command("sensitivity")(sensitivity_command)
app.command("inspect")(inspect_command)
app.command("verify")(verify_command)
app.command("bench")(bench_command)
app.command("targets")(targets_command)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"onnx-cgmq {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Mixed-precision ONNX models whose bit-widths are learned under a guaranteed bound."""
