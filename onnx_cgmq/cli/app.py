"""The commands of ``onnx-cgmq``. Heavy imports wait until a command runs."""

from __future__ import annotations

from typing import Annotated

import typer

from onnx_cgmq import __version__
from onnx_cgmq.cli.bench import bench_command
from onnx_cgmq.cli.check import inspect_command, verify_command
from onnx_cgmq.cli.curve import curve_command
from onnx_cgmq.cli.export import export_command
from onnx_cgmq.cli.groups import GroupedCommand
from onnx_cgmq.cli.quantize import quantize_command
from onnx_cgmq.cli.sensitivity import sensitivity_command
from onnx_cgmq.cli.targets import targets_command

_WIDEST_HELP = 120

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": _WIDEST_HELP,
    },
)
for name, command, short in (
    ("quantize", quantize_command, "Learn bit-widths under a bound; write the model."),
    ("curve", curve_command, "Quality against cost, a model for each point."),
    ("sensitivity", sensitivity_command, "Rank tensors by what they cost in accuracy."),
    ("inspect", inspect_command, "Show widths, cost and kernels of a model."),
    ("verify", verify_command, "Compare a quantized model with its float model."),
    ("bench", bench_command, "Time models side by side in onnxruntime."),
    ("export", export_command, "Write widths and ranges for other tools."),
    ("targets", targets_command, "List targets, show one, or measure its costs."),
):
    app.command(name, cls=GroupedCommand, short_help=short)(command)


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
