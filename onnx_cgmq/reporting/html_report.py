"""html_report(): a page of a result or a report, in one HTML file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from onnx_cgmq.api.curve_points import Curve
from onnx_cgmq.api.result import Result
from onnx_cgmq.api.sensitivity import Sensitivity
from onnx_cgmq.graph.files.load import file_size
from onnx_cgmq.inspection import Report
from onnx_cgmq.reporting.curve_page import curve_sections
from onnx_cgmq.reporting.file_sections import (
    cost_facts,
    footer,
    kernels_section,
    notes_section,
    settings_section,
    size_fact,
    widths_section,
)
from onnx_cgmq.reporting.page import Block, Fact, Facts, Page, Section, check_report_packages
from onnx_cgmq.reporting.run_sections import (
    agreement_table,
    course_section,
    errors_section,
    histograms_section,
    run_notes,
    settings_facts,
    summary_facts,
)
from onnx_cgmq.reporting.sensitivity_page import sensitivity_sections
from onnx_cgmq.reporting.tensor_rows import tensor_rows


def html_report(
    subject: Result | Report | Curve | Sensitivity,
    *,
    file: str | os.PathLike[str] | None = None,
    float_file: str | os.PathLike[str] | None = None,
    command: Sequence[str] | None = None,
) -> str:
    """Makes an HTML page of what a run made, of what :func:`inspect` read, or of what was measured.

    The page is one file of some hundred kilobytes. It loads nothing from a network, and has light
    and dark colours. It needs the packages of the extra ``report``
    (``pip install 'onnx-cgmq[report]'``).

    Args:
        subject: A result of :func:`quantize`, a report of :func:`inspect`, a :func:`curve`, or what
            :func:`sensitivity` measured. A result is run on up to 32 held-out samples, for the
            errors of tensors.
        file: The file that the page is about; the page then shows its name, and the size of a
            written or inspected one.
        float_file: The file of the float model, whose size the page shows; a result knows it if
            its run read such a file.
        command: The command line to show, word by word.

    Returns:
        The HTML text, to be written as UTF-8.

    Raises:
        ConfigError: A package that it needs is not installed.
        ModelError: A file can't be read.
    """
    check_report_packages()
    title = "Quantized model" if file is None else Path(file).name
    if isinstance(subject, Curve):
        return Page(title, curve_sections(subject, command), footer()).html()
    if isinstance(subject, Sensitivity):
        return Page(title, sensitivity_sections(subject, command), footer()).html()
    sizes: list[Fact] = []
    if file is not None:
        float_bytes = subject.float_bytes if isinstance(subject, Result) else None
        if float_file is not None:
            float_bytes = file_size(float_file)
        sizes = [size_fact(file_size(file), float_bytes)]
    if isinstance(subject, Result):
        sections = _of_result(subject, sizes, command)
    else:
        sections = _of_report(subject, sizes, command)
    return Page(title, sections, footer()).html()


def _of_result(
    result: Result, sizes: Sequence[Fact], command: Sequence[str] | None
) -> list[Section]:
    from onnx_cgmq.learn.tensor_errors import MOST_SAMPLES, tensor_errors  # loads torch

    errors = tensor_errors(result.mirror, result.held_out)
    rows = tensor_rows(result.report.tensors, result.plan.tensors, errors)
    samples = min(MOST_SAMPLES, len(result.held_out))
    tiles = Facts([*summary_facts(result), *sizes, *cost_facts(result.report)], tiles=True)
    summary: list[Block] = [tiles, *agreement_table(result)]
    return [
        Section("summary", "Summary", summary),
        notes_section(run_notes(result)),
        widths_section(rows),
        errors_section(rows, samples),
        histograms_section(rows, result.plan.tensors),
        kernels_section(result.report),
        course_section(result),
        settings_section(settings_facts(result.config), command),
    ]


def _of_report(
    report: Report, sizes: Sequence[Fact], command: Sequence[str] | None
) -> list[Section]:
    return [
        Section("summary", "Summary", [Facts([*sizes, *cost_facts(report)], tiles=True)]),
        notes_section(report.notes),
        widths_section(tensor_rows(report.tensors)),
        kernels_section(report),
        settings_section([], command),
    ]
