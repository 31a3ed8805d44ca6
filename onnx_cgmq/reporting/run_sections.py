"""The sections that only a run gives: what was reached, errors, histograms, its course."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from onnx_cgmq.api.result import Result
from onnx_cgmq.contract.bits import FLOAT_BITS, Role, code_range
from onnx_cgmq.contract.events import EpochDone, Notice, StageDone, Started
from onnx_cgmq.contract.plan import TensorPlan
from onnx_cgmq.reporting.charts import course_chart, errors_chart, histogram_chart
from onnx_cgmq.reporting.page import Block, Cell, Chart, Charts, Fact, Row, Section, Table
from onnx_cgmq.reporting.tensor_rows import TensorRow, marks
from onnx_cgmq.settings.config import Config

_WORST: Final = 10  # tensors whose histograms are shown
_MOST_LEVELS: Final = 32  # of a grid that is drawn: more would be a solid line


def summary_facts(result: Result) -> tuple[Fact, ...]:
    """Says whether the bound is kept, and how good the model is."""
    kept = result.check.within_bound is not False
    facts = [Fact("Bound", "kept" if kept else "broken", str(result.plan.bound), good=kept)]
    if result.drop is not None:
        kept = result.drop.kept
        title = f"Drop of at most {result.drop.asked}"
        facts.append(Fact(title, "kept" if kept else "not kept", result.drop.text, good=kept))
    if not result.complete:
        facts.append(Fact("The run ended early", result.outcome.reason, good=False))
    agreement = result.float_agreement
    if agreement is not None and agreement.outputs:
        name, output = min(
            agreement.outputs.items(),
            key=lambda item: np.inf if item[1].snr_db is None else item[1].snr_db,
        )
        facts.append(
            Fact("Agreement with float", output.text, f"{name}, {agreement.samples:,} held out")
        )
        if agreement.same_class is not None:
            facts.append(Fact("Same class as float", f"{agreement.same_class:.2%}"))
        if agreement.accuracy is not None:
            before = agreement.float_accuracy
            more = "" if before is None else f"float {before:.2%}"
            facts.append(Fact("Accuracy", f"{agreement.accuracy:.2%}", more))
    cost = result.cost
    if cost.table_cost is not None:
        facts.append(
            Fact("Estimated cost", f"{cost.table_cost:,.6g} {cost.table_unit}", "by the target")
        )
    return tuple(facts)


def agreement_table(result: Result) -> list[Block]:
    """Shows how each output agrees with the float model, if there are several."""
    outputs = {} if result.float_agreement is None else result.float_agreement.outputs
    if len(outputs) < 2:
        return []
    rows = [
        Row(
            [
                Cell(name),
                Cell(output.text, _finite(output.snr_db)),
                Cell(f"{output.max_abs_difference:.3g}", _finite(output.max_abs_difference)),
                Cell(f"{output.values:,}", output.values),
            ]
        )
        for name, output in outputs.items()
    ]
    return [Table(["output", "agreement#", "largest difference#", "values#"], rows)]


def _finite(number: float | None) -> float | None:
    """A number by which cells can be sorted: as JSON, HTML has no word for infinity here."""
    return None if number is None else float(np.nan_to_num(number))


def errors_section(rows: Sequence[TensorRow], samples: int) -> Section:
    """Shows the error of every quantized tensor along the network."""
    quantized = [row for row in rows if not row.tensor.is_float]
    own, so_far = (
        lambda row: row.error and row.error.own,
        lambda row: row.error and row.error.from_float,
    )
    chart = errors_chart(
        marks(quantized, Role.WEIGHT, own, "relative error"),
        marks(quantized, Role.ACTIVATION, own, "relative error"),
        marks(quantized, Role.ACTIVATION, so_far, "against the float model"),
    )
    text = (
        "The root mean square of what quantization changes, divided by that of the values. A bar "
        "is the error of the tensor alone: of a weight against the float model, of an activation "
        "against the values that its quantizer gets. The line is the error of the activation "
        "against the float model, with all that came before it. "
        f"Measured on {samples:,} held-out samples, in the mirror."
    )
    return Section("errors", "Errors", [Charts([Chart("Errors along the network", chart)])], text)


def histograms_section(rows: Sequence[TensorRow], plans: dict[str, TensorPlan]) -> Section:
    """Shows the values of the tensors with the largest errors, with range and grid."""
    measured = [
        (row.error.own, row)
        for row in rows
        if row.tensor.role is not Role.BIAS
        and not row.tensor.is_float
        and row.error
        and row.error.own
    ]
    measured.sort(key=lambda pair: -pair[0])
    charts = [_histogram(row, plans[row.tensor.name], error) for error, row in measured[:_WORST]]
    return Section(
        "histograms",
        f"The {len(charts)} tensors with the largest errors",
        [Charts(charts, small=True)],
        "How the values are spread, on a logarithmic scale. Dashed lines are the ends of the "
        "range; the comb at the foot has the values of the grid, up to 4 bits. If channels or "
        "blocks have ranges of their own, both are those of the one with the largest range.",
    )


def _histogram(row: TensorRow, plan: TensorPlan, error: float) -> Chart:
    assert row.error is not None  # it was measured
    ends, levels = _range_and_grid(plan)
    count = plan.step.size
    parts = "channels" if plan.block is None else "blocks"
    more = f"; {count:,} {parts} with ranges of their own" if count > 1 else ""
    return Chart(
        row.tensor.name,
        histogram_chart(row.tensor.role.value, row.error.counts, row.error.edges, ends, levels),
        f"{row.tensor.role.value}, {row.tensor.bits_text} bits, error {error:.2%}{more}",
    )


def _range_and_grid(
    plan: TensorPlan,
) -> tuple[tuple[float, float], npt.NDArray[np.float64]]:
    """The range and the values of the grid: those of the entry with the largest range."""
    widths, steps, offsets, lows, highs = (
        array.reshape(-1)
        for array in np.broadcast_arrays(
            plan.widths, plan.step, plan.zero_point, plan.low, plan.high
        )
    )
    has_grid = (widths > 0) & (widths < FLOAT_BITS)
    spans = np.where(has_grid, highs - lows, -1.0)
    entry = int(spans.argmax())
    ends = float(lows[entry]), float(highs[entry])
    if not has_grid[entry]:
        return ends, np.zeros(0)
    first, last = code_range(int(widths[entry]), plan.form)
    codes = np.arange(first, last + 1) if last - first < _MOST_LEVELS else np.zeros(0)
    return ends, (codes - int(offsets[entry])).astype(np.float64) * float(steps[entry])


def course_section(result: Result) -> Section:
    """Shows the stages and the epochs of a run."""
    stages = [event for event in result.events if isinstance(event, StageDone)]
    epochs = [event for event in result.events if isinstance(event, EpochDone)]
    blocks: list[Block] = []
    if len(epochs) > 1:
        caption = "The cost is the largest of those that are bounded, divided by its bound."
        chart = Chart("From epoch to epoch", course_chart(_series(epochs)), caption)
        blocks.append(Charts([chart]))
    steps = [_stage_row(stage) for stage in stages] + [_epoch_row(epoch) for epoch in epochs]
    if steps:
        columns = ["stage", "loss#", "held-out loss#", "accuracy#", "cost of bound#", "seconds#"]
        blocks.append(Table(columns, steps))
    outcome = result.outcome
    text = f"The run ended: {outcome.reason}. The loss of the model that was kept is "
    text += f"{outcome.validation_loss:.4g} on held-out data"
    started = next((event for event in result.events if isinstance(event, Started)), None)
    if started is not None and started.float_accuracy is not None:
        text += f"; the accuracy of the float model there is {started.float_accuracy:.2%}"
    return Section("course", "The course of the run", blocks, f"{text}.")


def _series(epochs: Sequence[EpochDone]) -> dict[str, dict[str, list[float | None]]]:
    series: dict[str, dict[str, list[float | None]]] = {
        "loss": {
            "training": [epoch.loss for epoch in epochs],
            "held out": [epoch.validation_loss for epoch in epochs],
        },
        "bits": {
            "weights": [epoch.mean_bits_weights for epoch in epochs],
            "activations": [epoch.mean_bits_activations for epoch in epochs],
        },
        "cost": {"cost": [_cost_ratio(epoch) for epoch in epochs]},
    }
    if epochs[0].validation_accuracy is not None:
        series["accuracy"] = {"held out": [epoch.validation_accuracy for epoch in epochs]}
    return series


def _cost_ratio(epoch: EpochDone) -> float:
    return max(cost / (limit or 1) for cost, limit in zip(epoch.costs, epoch.limits, strict=True))


def _stage_row(stage: StageDone) -> Row:
    return Row(
        [
            Cell(stage.stage),
            Cell(""),
            _number(stage.validation_loss),
            _share(stage.validation_accuracy),
            Cell(""),
            Cell(f"{stage.seconds:.1f}", stage.seconds),
        ]
    )


def _epoch_row(epoch: EpochDone) -> Row:
    return Row(
        [
            Cell(f"epoch {epoch.epoch}, {epoch.phase}", epoch.epoch),
            _number(epoch.loss),
            _number(epoch.validation_loss),
            _share(epoch.validation_accuracy),
            _share(_cost_ratio(epoch)),
            Cell(f"{epoch.seconds:.1f}", epoch.seconds),
        ]
    )


def _number(value: float) -> Cell:
    return Cell(f"{value:.4g}", _finite(value))


def _share(value: float | None) -> Cell:
    return Cell("") if value is None else Cell(f"{value:.2%}", value)


def run_notes(result: Result) -> list[str]:
    """All notes of a run: those before training, and those on the file."""
    notices = [event.message for event in result.events if isinstance(event, Notice)]
    return [*notices, *result.check.notes, *result.report.notes]


def settings_facts(config: Config) -> list[Fact]:
    """The settings of a run; those that are not set are left out."""
    return [
        Fact(name, text)
        for name in type(config).model_fields
        if (text := _text(getattr(config, name)))
    ]


def _text(value: Any) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_text(item)}" for name, item in value.items())
    if isinstance(value, (tuple, list)):
        return ", ".join(_text(item) for item in value)
    if value is None:
        return ""
    return str(getattr(value, "name", None) or getattr(value, "__qualname__", value))
