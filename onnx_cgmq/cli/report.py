"""The option ``--report`` of several commands: an HTML page of what they found."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from onnx_cgmq.contract.replace import replaced

if TYPE_CHECKING:
    from onnx_cgmq.api.curve_points import Curve
    from onnx_cgmq.api.result import Result
    from onnx_cgmq.api.sensitivity import Sensitivity
    from onnx_cgmq.inspection import Report


def check_report(
    report: Path | None, model: Path, others: Mapping[str, Collection[Path]] | None = None
) -> None:
    """Refuses a report on a model that could not be written at the end.

    Args:
        report: The file of the report, if there is to be one.
        model: The model that it is on.
        others: Further files that are read, by what they are.

    Raises:
        ConfigError: A package that a report needs is not installed.
        OutputError: The file can't be written, or is one of the model's.
        ModelError: The model can't be read.
    """
    if report is None:
        return
    from onnx_cgmq.api.output import OutputFiles
    from onnx_cgmq.graph.files.load import external_files, load_model
    from onnx_cgmq.reporting import check_report_packages

    check_report_packages()
    read = {"the model": [model], "external data of the model": external_files(load_model(model))}
    OutputFiles(report=report).check({**read, **(others or {})})


def write_report(report: Path, subject: Result | Report | Curve | Sensitivity, file: Path) -> None:
    """Writes the HTML report of a command.

    Args:
        report: The file to write.
        subject: What the command found.
        file: The model that the page is about.

    Raises:
        OutputError: The file can't be written.
    """
    from onnx_cgmq.reporting import html_report

    command = ["onnx-cgmq", *sys.argv[1:]]
    html = html_report(subject, file=file, command=command)
    with replaced(report) as part:
        part.write_text(html, encoding="utf-8", errors="backslashreplace")
