"""The command ``export``: widths and ranges for other tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from onnx_cgmq.cli.failures import reported
from onnx_cgmq.cli.options import DebugOption, JsonOption


def export_command(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE", help="A quantized ONNX file, or the plan beside it (NAME.plan.json)."
        ),
    ],
    as_format: Annotated[
        str,
        typer.Option(
            "--as",
            metavar="FORMAT",
            help="aimet (encodings of AIMET, version 1.0.0) or ort-overrides (TensorQuantOverrides "
            "of onnxruntime's quantize_static).",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="OUT",
            help="The JSON file to write. Of an ONNX file, the float model with learned weights "
            "goes beside it, as OUT with the suffix .onnx.",
        ),
    ],
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Export widths and ranges of a quantized model for AIMET or onnxruntime."""
    with reported(as_json=as_json, debug=debug):
        from onnx_cgmq.api.export import export_encodings, exported_files
        from onnx_cgmq.api.output import OutputFiles

        text, model = (*exported_files(output, with_model=True),)
        OutputFiles(model=model, plan=text).check_apart({"the source": [source]})
        exported = export_encodings(source, as_format)
        files = exported.save(output)
        for note in exported.notes:
            typer.echo(f"note: {note}", err=True)
        kinds = dict(zip(("encodings", "model"), map(str, files), strict=False))
        if as_json:
            typer.echo(json.dumps({**kinds, "notes": exported.notes}, indent=2))
        else:
            typer.echo("\n".join(f"{kind:9}  {path}" for kind, path in kinds.items()))
