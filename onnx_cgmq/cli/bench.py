"""The command ``bench``: times models side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnx_cgmq.cli.data_options import DataOptions, with_data_options
from onnx_cgmq.cli.failures import reported
from onnx_cgmq.cli.groups import DATA
from onnx_cgmq.cli.options import (
    DATA_HELP,
    DebugOption,
    JsonOption,
    ShapeOption,
    output_console,
    parse_shapes,
    working,
)
from onnx_cgmq.cli.say import say


@with_data_options
def bench_command(
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL...", help="ONNX files with the same inputs.")
    ],
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="DATA",
            help=f"{DATA_HELP} Without it, inputs are random.",
            rich_help_panel=DATA,
        ),
    ] = None,
    shape: ShapeOption = None,
    rows: Annotated[
        int | None,
        typer.Option(
            "--rows",
            metavar="N",
            help="Tokens that a call reads, where the model leaves the length open.",
        ),
    ] = None,
    past: Annotated[
        int | None,
        typer.Option("--past", metavar="N", help="Tokens in a decoder's cache (inputs past*)."),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", metavar="N", help="Samples in one call.")] = 1,
    threads: Annotated[
        int, typer.Option("--threads", metavar="N", help="Threads within an operator.")
    ] = 1,
    rounds: Annotated[
        int, typer.Option("--rounds", metavar="N", help="Number of interleaved rounds.")
    ] = 20,
    as_json: JsonOption = False,
    debug: DebugOption = False,
    *,
    data_options: DataOptions,
) -> None:
    """Time models side by side in onnxruntime, and compare the others with the first."""
    with reported(as_json=as_json, debug=debug):
        with working("time the models"):
            from onnx_cgmq.api.benchmark import bench

            result = bench(
                models,
                data_options.of_optional(data),
                shapes=parse_shapes(shape),
                rows=rows,
                past=past,
                batch=batch,
                threads=threads,
                rounds=rounds,
            )
        if as_json:
            typer.echo(result.to_json())
            return
        output_console().print(result.table())
        inputs = "random inputs" if result.random_inputs else "inputs from the data"
        say(
            f"onnxruntime {result.onnxruntime}, {result.threads} thread(s), batch {result.batch}, "
            f"medians of {result.rounds} interleaved rounds, {inputs}"
        )
        for note in result.notes:
            say(f"note: {note}")
