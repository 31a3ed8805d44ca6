"""What a run of quantize() made."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from onnx_cgmq.api.drop import Drop
from onnx_cgmq.api.float_agreement import FloatAgreement
from onnx_cgmq.api.output import OutputFiles
from onnx_cgmq.api.verification import Check
from onnx_cgmq.contract.events import Event
from onnx_cgmq.contract.plan import BitPlan, PlanCost
from onnx_cgmq.contract.run_paths import plan_path
from onnx_cgmq.data.source import Samples
from onnx_cgmq.graph.files.load import external_files, save_model
from onnx_cgmq.inspection import Report
from onnx_cgmq.settings.config import Config

if TYPE_CHECKING:  # torch loads when a run starts, not on import
    from onnx_cgmq.learn.outcome import Outcome
    from onnx_cgmq.mirror.module import Mirror


@dataclass(frozen=True)
class Result:
    """What a run made.

    Attributes:
        model: The written model.
        plan: Widths and ranges of every tensor, and their cost.
        report: Widths and cost that were read from the written model alone; for the form ``ort``
            also the kernels that onnxruntime runs.
        check: How the written model in onnxruntime compares with the mirror on held-out data.
        outcome: How learning ended.
        mirror: The trained mirror, for :func:`~onnx_cgmq.api.verification.verify` on other data.
        history: One record for each epoch.
        float_agreement: How good the written model is: its agreement with the float model on
            held-out data, both in onnxruntime. ``None`` if it could not be measured; a note then
            says why.
        events: What happened, in order: all events but training steps, the progress of
            stages, and the end.
        config: The settings of the run, with the shapes that the data have.
        held_out: The held-out samples.
        float_bytes: Bytes of the float model's file, with its external data; ``None`` if it was not
            given as a file.
        drop: What the written model lost, if the most that it may lose was given (``max_drop``).
    """

    model: ir.Model
    plan: BitPlan
    report: Report
    check: Check
    outcome: Outcome
    mirror: Mirror = field(repr=False)
    history: tuple[dict[str, Any], ...] = field(repr=False)
    float_agreement: FloatAgreement | None = None
    events: tuple[Event, ...] = field(default=(), repr=False)
    config: Config = field(repr=False, kw_only=True)
    held_out: Samples = field(repr=False, kw_only=True)
    float_bytes: int | None = field(default=None, kw_only=True)
    drop: Drop | None = field(default=None, kw_only=True)

    @property
    def cost(self) -> PlanCost:
        """The cost of the plan."""
        assert self.plan.cost is not None  # the plan of a guide has its cost
        return self.plan.cost

    @property
    def complete(self) -> bool:
        """Whether all epochs were run; otherwise this is the best model that keeps the bound."""
        return self.outcome.complete

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the model atomically, and beside it its plan (``NAME.plan.json``).

        Raises:
            OutputError: A file can't be written.
        """
        files = OutputFiles.of_result(path)
        files.check({"external data of the model": external_files(self.model)})
        save_model(self.model, path)
        self.plan.save(plan_path(Path(path)))
