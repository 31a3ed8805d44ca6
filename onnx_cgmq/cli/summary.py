"""What a command shows at its end: tables, or one JSON document."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from onnx_cgmq.api.agreement import outputs_text
from onnx_cgmq.graph.files.load import file_size
from onnx_cgmq.inspection.terminal import number_text, size_text

if TYPE_CHECKING:
    from onnx_cgmq.api.result import Result
    from onnx_cgmq.api.verification import Check
    from onnx_cgmq.contract.events import Started


_NAMES: Final = 8
"""How wide the names of figures are at least, so that those of files stand below them."""


class Figures:
    """Figures with their names, one below the other; their lines end between words."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, str]] = []

    def add_row(self, name: str, text: str) -> None:
        """Adds a figure."""
        self._rows.append((name, text))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        beside = max(_NAMES, *(len(name) for name, _ in self._rows)) + 2
        room = max(1, options.max_width - beside)
        for name, text in self._rows:
            lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)
            for number, line in enumerate(lines):
                head = "" if number else name
                row = Text.assemble((f"{head:{beside}}", "bold"), line)
                row.no_wrap, row.overflow = True, "ignore"
                yield row


def check_table(check: Check) -> Figures:
    """Makes a table of a verification, with one line for each figure."""
    table = Figures()
    if check.bound is not None:
        table.add_row("bound", f"{check.bound}: kept")
    table.add_row("samples", f"{check.samples:,}")
    if check.outputs:
        table.add_row("agreement", f"{outputs_text(check.outputs)} with the reference")
    if check.accuracy is not None and check.reference_accuracy is not None:
        table.add_row(
            "accuracy", f"{check.accuracy:.2%} (reference {check.reference_accuracy:.2%})"
        )
    if check.class_agreement is not None:
        table.add_row("same class", f"{check.class_agreement:.2%}")
    table.add_row(
        "difference", f"mean {check.mean_abs_difference:.3g}, max {check.max_abs_difference:.3g}"
    )
    table.add_row("RBOP", f"{check.rbop:.4%} ({number_text(check.bops)} bit operations)")
    table.add_row("weights", size_text(check.weight_bytes))
    _add_further_costs(table, check)
    for note in check.notes:
        table.add_row("note", note)
    return table


def summary_table(result: Result, started: Started | None, file: Path) -> Figures:
    """Makes a table of what a run made, with one line for each figure.

    Args:
        result: The result of the run.
        started: Its first event, which has the accuracy of the float model's mirror.
        file: The file that it wrote.
    """
    cost, check, agreement = result.cost, result.check, result.float_agreement
    table = Figures()
    table.add_row("bound", f"{result.plan.bound}: kept")
    if result.drop is not None:
        kept = "kept" if result.drop.kept else "not kept"
        table.add_row("max drop", f"{result.drop.asked}: {kept}, {result.drop.text}")
    if agreement is not None:
        table.add_row("quality", f"agrees with the float model: {agreement.text}")
    accuracy, samples = check.accuracy, check.samples
    float_accuracy = None if started is None else started.float_accuracy
    if agreement is not None:  # both figures are of the same samples, in onnxruntime
        accuracy, samples = agreement.accuracy, agreement.samples
        float_accuracy = agreement.float_accuracy
    if accuracy is not None:
        before = "" if float_accuracy is None else f" (float {float_accuracy:.2%})"
        table.add_row("accuracy", f"{accuracy:.2%}{before} in onnxruntime, {samples:,} held out")
    table.add_row("size", _sizes(file_size(file), result.float_bytes))
    table.add_row("RBOP", f"{cost.rbop:.4%} ({number_text(cost.bops)} bit operations)")
    _add_further_costs(table, check)
    return table


def _sizes(written: int, before: int | None) -> str:
    text = size_text(written)
    return f"{text} (float {size_text(before)}; {before / written:.1f} x)" if before else text


def mirror_text(check: Check) -> str:
    """Says how the written model agrees with the mirror; empty without classes."""
    if check.class_agreement is None:
        return ""
    return f"mirror: same class for {check.class_agreement:.2%} of {check.samples:,} held out"


def result_json(result: Result, started: Started | None, files: dict[str, Path]) -> str:
    """Makes a JSON document of a run.

    Args:
        result: The result of the run.
        started: Its first event.
        files: The files that were written, by kind; ``model`` is one of the kinds.
    """
    agreement = result.float_agreement
    document: dict[str, Any] = {
        "complete": result.complete,
        "reason": result.outcome.reason,
        "epochs": result.outcome.epochs,
        "bound": result.plan.bound,
        "cost": result.cost.model_dump(mode="json"),
        "float_accuracy": None if started is None else started.float_accuracy,
        "float_agreement": None if agreement is None else agreement.to_record(),
        "drop": None if result.drop is None else asdict(result.drop),
        "check": json.loads(result.check.to_json()),
        "float_bytes": result.float_bytes,
        "file_bytes": file_size(files["model"]),
        "files": {kind: str(path) for kind, path in files.items()},
        "tensors": [
            {
                "name": tensor.name,
                "role": tensor.role.value,
                "granularity": tensor.granularity.value,
                "shape": list(tensor.shape),
                "mean_bits": tensor.mean_bits,
            }
            for tensor in result.plan.tensors.values()
        ],
    }
    return json.dumps(document, indent=2)


def _add_further_costs(table: Figures, check: Check) -> None:
    """Adds the costs that only some runs count."""
    if check.peak_activation_bytes is not None:
        table.add_row("activations", f"{size_text(check.peak_activation_bytes)} at a time")
    if check.table_cost is not None:
        table.add_row("cost", f"{check.table_cost:,.6g} {check.table_unit} by the target's table")
