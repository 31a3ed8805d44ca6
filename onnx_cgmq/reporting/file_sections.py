"""The sections that a file alone gives: widths, kernels, notes, versions."""

from __future__ import annotations

import math
import platform
import shlex
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from onnx_cgmq import __version__
from onnx_cgmq.contract.bits import Role
from onnx_cgmq.gating.predicted_kernels import Kernel
from onnx_cgmq.inspection import NodeReport, Report
from onnx_cgmq.reporting.charts import widths_chart
from onnx_cgmq.reporting.page import (
    Block,
    Cell,
    Chart,
    Charts,
    Fact,
    Facts,
    Row,
    Section,
    Sentences,
    Table,
)
from onnx_cgmq.reporting.tensor_rows import TensorRow, marks, tensor_table

_FLOAT_BYTES: Final = 4
_PACKAGES: Final = ("onnxruntime", "torch", "onnx", "onnx-ir", "numpy")


def cost_facts(report: Report) -> tuple[Fact, ...]:
    """Says what a file costs, and how many of its nodes run in integers."""
    float_bytes = _FLOAT_BYTES * sum(
        math.prod(t.shape) for t in report.tensors.values() if t.role is not Role.ACTIVATION
    )
    facts = [
        Fact(
            "Bit operations",
            f"{report.rbop:.3%} of float",
            f"{report.bops:,} for one sample, {report.macs:,} MACs",
        ),
        Fact(
            "Weights and biases",
            f"{report.weight_bytes:,} bytes",
            f"in floats {float_bytes:,}{_times(float_bytes, report.weight_bytes)}",
        ),
    ]
    if report.peak_activation_bytes is not None:
        more = f"in floats {report.float_activation_bytes:,}"
        facts.append(Fact("Activations at a time", f"{report.peak_activation_bytes:,} bytes", more))
    kernels = Counter(_kernel_text(node) for node in report.nodes)
    if _looked_up(report):
        others = ", ".join(f"{n} {kernel}" for kernel, n in kernels.items() if kernel != "integer")
        facts.append(
            Fact(
                "Integer kernels",
                f"{kernels['integer']} of {len(report.nodes)}",
                others and f"the others: {others}",
            )
        )
    return tuple(facts)


def size_fact(file_bytes: int, float_bytes: int | None) -> Fact:
    """Says how large a file is, and the float file if its size is known."""
    more = "" if float_bytes is None else f"float {float_bytes:,}{_times(float_bytes, file_bytes)}"
    return Fact("File", f"{file_bytes:,} bytes", more)


def _times(before: int, after: int) -> str:
    return f", {before / after:.1f} times as many" if after else ""


def widths_section(rows: Sequence[TensorRow], text: str = "") -> Section:
    """Shows the width of every tensor, as a bar along the network and in a table."""
    weights, activations = (
        marks(rows, role, lambda row: row.tensor.mean_bits, "bits")
        for role in (Role.WEIGHT, Role.ACTIVATION)
    )
    chart = Chart(
        "Mean widths along the network",
        widths_chart(weights, activations),
        "A bar for each tensor. It leads to the row of the tensor in the table below.",
    )
    return Section("widths", "Widths", [Charts([chart]), tensor_table(rows)], text)


def kernels_section(report: Report) -> Section:
    """Shows which nodes run in integers, why the others do not, and what each costs."""
    known = _looked_up(report)
    columns = ["node", "operator", "bits", "BOPs#", "share#", "MACs#", "RBOP#"]
    columns += ["kernel", "why not fast"] if known else []
    rows = [_node_row(node, report.bops, known=known) for node in report.nodes]
    text = (
        "Which nodes onnxruntime runs in integers on the CPU, and the first reason why a node "
        "does not or is slow."
        if known
        else "Kernels were not looked up."
    )
    blocks: list[Block] = [Table(columns, rows)]
    if report.pairs:
        blocks.append(_pairs_table(report))
    return Section("kernels", "Kernels and cost", blocks, text)


def _node_row(node: NodeReport, bops: int, *, known: bool) -> Row:
    share = node.bops / max(1, bops)
    kernel = (Cell(_kernel_text(node)), Cell(node.reason)) if known else ()
    return Row(
        [
            Cell(node.name),
            Cell(node.op_type),
            Cell(" x ".join(f"{bits:.3g}" for bits in node.bits), max(node.bits)),
            Cell(f"{node.bops:,}", node.bops),
            Cell(f"{share:.1%}", share, share),
            Cell(f"{node.macs:,}", node.macs),
            Cell(f"{node.rbop:.2%}", node.rbop),
            *kernel,
        ]
    )


def _pairs_table(report: Report) -> Table:
    total = max(1, sum(report.pairs.values()))
    return Table(
        ["bits of weight#", "bits of activation#", "MACs#", "share of MACs#"],
        [
            Row(
                [
                    Cell(str(weight), weight),
                    Cell(str(activation), activation),
                    Cell(f"{macs:,}", macs),
                    Cell(f"{macs / total:.1%}", macs / total, macs / total),
                ]
            )
            for (weight, activation), macs in sorted(report.pairs.items())
        ],
    )


def _looked_up(report: Report) -> bool:
    return any(node.kernel or node.reason for node in report.nodes)


def _kernel_text(node: NodeReport) -> str:
    name = node.kernel.value if node.kernel else "unknown"
    return f"{name}, slow" if node.slow and node.kernel is Kernel.INTEGER else name


def notes_section(notes: Sequence[str]) -> Section:
    """Shows sentences that the user should know."""
    text = "" if notes else "There are none."
    return Section("notes", "Notes", [Sentences(list(dict.fromkeys(notes)))] if notes else [], text)


def settings_section(settings: Sequence[Fact], command: Sequence[str] | None) -> Section:
    """Shows the settings, the command line, and the versions of what took part."""
    line = [Fact("Command line", shlex.join(command))] if command else []
    versions = [Fact("onnx-cgmq", __version__), Fact("Python", platform.python_version())]
    versions += [Fact(name, found) for name in _PACKAGES if (found := _version(name))]
    return Section("settings", "Settings and versions", [Facts([*line, *settings, *versions])])


def _version(package: str) -> str:
    """The version of an installed package; empty for one that has another name here."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def footer() -> str:
    """Says what made the page, and when."""
    return f"Made by onnx-cgmq {__version__} on {datetime.now().astimezone():%Y-%m-%d %H:%M %Z}."
