"""Bit-widths for ONNX models, learned under a guaranteed bound (CGMQ)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from onnx_cgmq.api.agreement import OutputAgreement
    from onnx_cgmq.api.benchmark import Benchmark, Timing, bench
    from onnx_cgmq.api.explain import explain
    from onnx_cgmq.api.float_agreement import FloatAgreement
    from onnx_cgmq.api.pipeline import quantize
    from onnx_cgmq.api.result import Result
    from onnx_cgmq.api.verification import Check, verify
    from onnx_cgmq.contract.bits import Granularity, GridForm, Ranges, Role
    from onnx_cgmq.contract.decisions import Decision, Verdict
    from onnx_cgmq.contract.events import (
        EpochDone,
        Event,
        Finished,
        Limit,
        Notice,
        StageDone,
        StageProgress,
        Started,
        StepDone,
    )
    from onnx_cgmq.contract.form import Form
    from onnx_cgmq.contract.plan import BitPlan, PlanCost, TensorPlan
    from onnx_cgmq.errors import (
        AgreementError,
        BoundError,
        CgmqError,
        ConfigError,
        DataError,
        ModelError,
        OutputError,
        UnsupportedOperatorError,
        VerificationError,
    )
    from onnx_cgmq.gating.insert import insert_gates
    from onnx_cgmq.gating.predicted_kernels import Kernel
    from onnx_cgmq.inspection import NodeReport, Report, TensorReport, inspect
    from onnx_cgmq.learn.calibrate import calibrate
    from onnx_cgmq.learn.guide import Guide
    from onnx_cgmq.learn.outcome import Outcome
    from onnx_cgmq.mirror.module import Mirror
    from onnx_cgmq.preparation.equalize import equalize
    from onnx_cgmq.preparation.prepare import prepare
    from onnx_cgmq.reporting.html_report import html_report
    from onnx_cgmq.settings.config import Config, Direction, Effort
    from onnx_cgmq.settings.data_files import DataFiles
    from onnx_cgmq.settings.image_options import ImageOptions
    from onnx_cgmq.settings.target import Target
    from onnx_cgmq.writing.write_back import write_back

# Names load on first use: importing the package must not load torch.
_MODULES = {
    "Benchmark": "onnx_cgmq.api.benchmark",
    "AgreementError": "onnx_cgmq.errors",
    "BitPlan": "onnx_cgmq.contract.plan",
    "BoundError": "onnx_cgmq.errors",
    "CgmqError": "onnx_cgmq.errors",
    "Check": "onnx_cgmq.api.verification",
    "Config": "onnx_cgmq.settings.config",
    "ConfigError": "onnx_cgmq.errors",
    "DataError": "onnx_cgmq.errors",
    "DataFiles": "onnx_cgmq.settings.data_files",
    "Direction": "onnx_cgmq.settings.config",
    "Decision": "onnx_cgmq.contract.decisions",
    "Effort": "onnx_cgmq.settings.config",
    "EpochDone": "onnx_cgmq.contract.events",
    "Event": "onnx_cgmq.contract.events",
    "Finished": "onnx_cgmq.contract.events",
    "FloatAgreement": "onnx_cgmq.api.float_agreement",
    "Form": "onnx_cgmq.contract.form",
    "Granularity": "onnx_cgmq.contract.bits",
    "GridForm": "onnx_cgmq.contract.bits",
    "Guide": "onnx_cgmq.learn.guide",
    "ImageOptions": "onnx_cgmq.settings.image_options",
    "Kernel": "onnx_cgmq.gating.predicted_kernels",
    "Limit": "onnx_cgmq.contract.events",
    "Mirror": "onnx_cgmq.mirror.module",
    "ModelError": "onnx_cgmq.errors",
    "NodeReport": "onnx_cgmq.inspection",
    "Notice": "onnx_cgmq.contract.events",
    "Outcome": "onnx_cgmq.learn.outcome",
    "OutputAgreement": "onnx_cgmq.api.agreement",
    "OutputError": "onnx_cgmq.errors",
    "PlanCost": "onnx_cgmq.contract.plan",
    "Ranges": "onnx_cgmq.contract.bits",
    "Report": "onnx_cgmq.inspection",
    "Result": "onnx_cgmq.api.result",
    "Role": "onnx_cgmq.contract.bits",
    "StageDone": "onnx_cgmq.contract.events",
    "StageProgress": "onnx_cgmq.contract.events",
    "Started": "onnx_cgmq.contract.events",
    "StepDone": "onnx_cgmq.contract.events",
    "Target": "onnx_cgmq.settings.target",
    "TensorPlan": "onnx_cgmq.contract.plan",
    "TensorReport": "onnx_cgmq.inspection",
    "Timing": "onnx_cgmq.api.benchmark",
    "UnsupportedOperatorError": "onnx_cgmq.errors",
    "Verdict": "onnx_cgmq.contract.decisions",
    "VerificationError": "onnx_cgmq.errors",
    "bench": "onnx_cgmq.api.benchmark",
    "calibrate": "onnx_cgmq.learn.calibrate",
    "equalize": "onnx_cgmq.preparation.equalize",
    "explain": "onnx_cgmq.api.explain",
    "insert_gates": "onnx_cgmq.gating.insert",
    "html_report": "onnx_cgmq.reporting.html_report",
    "inspect": "onnx_cgmq.inspection",
    "prepare": "onnx_cgmq.preparation.prepare",
    "quantize": "onnx_cgmq.api.pipeline",
    "verify": "onnx_cgmq.api.verification",
    "write_back": "onnx_cgmq.writing.write_back",
}

__all__ = [
    "AgreementError",
    "Benchmark",
    "BitPlan",
    "BoundError",
    "CgmqError",
    "Check",
    "Config",
    "ConfigError",
    "DataError",
    "DataFiles",
    "Decision",
    "Direction",
    "Effort",
    "EpochDone",
    "Event",
    "Finished",
    "FloatAgreement",
    "Form",
    "Granularity",
    "GridForm",
    "Guide",
    "ImageOptions",
    "Kernel",
    "Limit",
    "Mirror",
    "ModelError",
    "NodeReport",
    "Notice",
    "Outcome",
    "OutputAgreement",
    "OutputError",
    "PlanCost",
    "Ranges",
    "Report",
    "Result",
    "Role",
    "StageDone",
    "StageProgress",
    "Started",
    "StepDone",
    "Target",
    "TensorPlan",
    "TensorReport",
    "Timing",
    "UnsupportedOperatorError",
    "Verdict",
    "VerificationError",
    "__version__",
    "bench",
    "calibrate",
    "equalize",
    "explain",
    "html_report",
    "insert_gates",
    "inspect",
    "prepare",
    "quantize",
    "verify",
    "write_back",
]


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
