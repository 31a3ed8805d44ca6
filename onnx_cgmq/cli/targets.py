"""The command ``targets``: lists what models can be made for."""

from __future__ import annotations

from typing import Annotated

import typer

from onnx_cgmq.cli.failures import reported
from onnx_cgmq.cli.options import DebugOption, output_console


def targets_command(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="The target to show as TOML.")
    ] = None,
    debug: DebugOption = False,
) -> None:
    """List the built-in targets, or show one as a TOML file to start from."""
    with reported(as_json=False, debug=debug):
        from rich.table import Table

        from onnx_cgmq.settings import built_in_targets, load_target, target_text

        if name is not None:
            typer.echo(target_text(name), nl=False)
            return
        table = Table("target", "weights", "activations", "form", "description", box=None)
        for target in map(load_target, built_in_targets()):
            widths = (
                ",".join(map(str, item.widths)) for item in (target.weights, target.activations)
            )
            table.add_row(target.name, *widths, target.form.value, target.description)
        output_console().print(table)
