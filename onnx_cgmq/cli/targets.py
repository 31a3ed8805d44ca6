"""The command ``targets``: what models can be made for, and what products cost here."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from onnx_cgmq.cli.failures import reported
from onnx_cgmq.cli.options import DebugOption, output_console, parse_widths


def targets_command(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="A target, or a TOML file: show it as TOML."),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="Time a convolution in onnxruntime at every pair of widths that NAME has (default "
            "ort-cpu), and print what a multiply-accumulate costs: the [cost] table of a target.",
        ),
    ] = False,
    widths: Annotated[
        str | None,
        typer.Option("--widths", metavar="2,4,8", help="Measure these widths of weights."),
    ] = None,
    activation_widths: Annotated[
        str | None,
        typer.Option("--activation-widths", metavar="4,8", help="The same for activations."),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option("--rounds", metavar="N", help="Interleaved rounds of timing.")
    ] = None,
    debug: DebugOption = False,
) -> None:
    """List the built-in targets, show one as a TOML file to start from, or measure its costs."""
    given: dict[str, Any] = {
        "target": name,
        "widths": parse_widths(widths),
        "activation_widths": parse_widths(activation_widths, "--activation-widths"),
        "rounds": rounds,
    }
    settings = {setting: value for setting, value in given.items() if value is not None}
    if not measure and settings.keys() - {"target"}:
        raise typer.BadParameter("--widths, --activation-widths and --rounds need --measure")
    with reported(as_json=False, debug=debug):
        if measure:
            _measure(settings)
        elif name is not None:
            from onnx_cgmq.settings import target_text

            typer.echo(target_text(name), nl=False)
        else:
            _list()


def _list() -> None:
    from onnx_cgmq.inspection.terminal import Column, FittedTable
    from onnx_cgmq.settings import built_in_targets, load_target

    table = FittedTable(
        Column("target"),
        Column("weights"),
        Column("activations"),
        Column("form"),
        Column("description", wraps=True, shortest=20),
    )
    for target in map(load_target, built_in_targets()):
        widths = (",".join(map(str, item.widths)) for item in (target.weights, target.activations))
        table.add_row(target.name, *widths, target.form.value, target.description)
    output_console().print(table)


def _measure(settings: dict[str, Any]) -> None:
    """Prints the table alone on stdout, so that it can be added to a file."""
    from onnx_cgmq.api.measured_costs import measure_costs

    def show(line: str) -> None:
        typer.echo(line, err=True)

    typer.echo(measure_costs(**settings, progress=show).to_toml(), nl=False)
