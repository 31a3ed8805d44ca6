"""What a command shows at its end: tables, or one JSON document."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from onnx_cgmq.api.agreement import outputs_text
from onnx_cgmq.graph.files.load import file_size

if TYPE_CHECKING:
    from onnx_cgmq.api.result import Result
    from onnx_cgmq.api.verification import Check
    from onnx_cgmq.contract.events import Started


def check_table(check: Check) -> Table:
    """Makes a table of a verification, with one line for each figure."""
    table = _figures()
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
    table.add_row("RBOP", f"{check.rbop:.4%} ({check.bops:,} bit operations)")
    table.add_row("weights", f"{check.weight_bytes:,} bytes")
    _add_further_costs(table, check)
    if check.bound is not None:
        table.add_row("bound", f"{check.bound}: kept")
    for note in check.notes:
        table.add_row("note", note)
    return table


def result_table(
    result: Result, started: Started | None, files: dict[str, Path], model: Path
) -> Table:
    """Makes a table of a run, with one line for each figure.

    Args:
        result: The result of the run.
        started: Its first event, which has the accuracy of the float model's mirror.
        files: The files that were written, by kind; ``model`` is one of the kinds.
        model: The file of the float model.
    """
    cost, check = result.cost, result.check
    table = _figures()
    table.add_row("bound", f"{result.plan.bound}: kept")
    if result.drop is not None:
        kept = "kept" if result.drop.kept else "not kept"
        table.add_row("max drop", f"{result.drop.asked}: {kept}, {result.drop.text}")
    table.add_row("RBOP", f"{cost.rbop:.4%} ({cost.bops:,} bit operations)")
    _add_further_costs(table, check)
    agreement = result.float_agreement
    accuracy, samples = check.accuracy, check.samples
    float_accuracy = None if started is None else started.float_accuracy
    if agreement is not None:  # both figures are of the same samples, in onnxruntime
        accuracy, samples = agreement.accuracy, agreement.samples
        float_accuracy = agreement.float_accuracy
    if accuracy is not None:
        before = "" if float_accuracy is None else f" (float {float_accuracy:.2%})"
        table.add_row("accuracy", f"{accuracy:.2%}{before} in onnxruntime, {samples:,} held out")
    if agreement is not None:
        table.add_row("quality", f"agrees with the float model: {agreement.text}")
    if check.class_agreement is not None:
        table.add_row(
            "mirror", f"same class for {check.class_agreement:.2%} of {check.samples:,} held out"
        )
    before_size, after_size = file_size(model), file_size(files["model"])
    table.add_row(
        "size", f"{after_size:,} bytes (float {before_size:,}; {before_size / after_size:.1f} x)"
    )
    return table


def result_json(
    result: Result, started: Started | None, files: dict[str, Path], model: Path
) -> str:
    """Makes a JSON document of a run; the arguments are those of :func:`result_table`."""
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
        "float_bytes": file_size(model),
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


def _add_further_costs(table: Table, check: Check) -> None:
    """Adds the costs that only some runs count."""
    if check.peak_activation_bytes is not None:
        table.add_row("activations", f"{check.peak_activation_bytes:,} bytes at a time")
    if check.table_cost is not None:
        table.add_row("cost", f"{check.table_cost:,.6g} {check.table_unit} by the target's table")


def _figures() -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table
