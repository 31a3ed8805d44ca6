"""The option ``--report`` of several commands: an HTML page of what they found."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from onnx_cgmq.contract.replace import replaced

if TYPE_CHECKING:
    from onnx_cgmq.api.curve_points import Curve
    from onnx_cgmq.api.output import OutputFiles
    from onnx_cgmq.api.result import Result
    from onnx_cgmq.api.sensitivity import Sensitivity
    from onnx_cgmq.inspection import Report


def check_report(files: OutputFiles, model: Path, read: Mapping[str, Iterable[Path]]) -> None:
    """Refuses a report that could not be written at the end, before there is any work to lose.

    Args:
        files: What the command writes; nothing is checked if no report is among it.
        model: The model that the command reads.
        read: Further files that it reads, by what they are.

    Raises:
        ConfigError: A package that a report needs is not installed.
        OutputError: The file can't be written, or is one of the others.
        ModelError: The model can't be read.
    """
    if files.report is None:
        return
    from onnx_cgmq.graph.files.load import external_files, load_model
    from onnx_cgmq.reporting import check_report_packages

    check_report_packages()
    external = external_files(load_model(model))
    files.check({"the model": [model], "external data of the model": external, **read})


def write_report(
    report: Path,
    subject: Result | Report | Curve | Sensitivity,
    file: Path,
    float_file: Path | None = None,
) -> None:
    """Writes the HTML report of a command.

    Args:
        report: The file to write.
        subject: What the command found.
        file: The model that the page is about.
        float_file: The float model, if there is one.

    Raises:
        OutputError: The file can't be written.
    """
    from onnx_cgmq.reporting import html_report

    command = ["onnx-cgmq", *sys.argv[1:]]
    html = html_report(subject, file=file, float_file=float_file, command=command)
    with replaced(report) as part:
        part.write_text(html, encoding="utf-8", errors="backslashreplace")
