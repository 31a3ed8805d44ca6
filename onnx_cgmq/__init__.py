"""Bit-widths for ONNX models, learned under a guaranteed bound (CGMQ)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from onnx_cgmq.api.agreement import OutputAgreement
    from onnx_cgmq.api.benchmark import Benchmark, Timing, bench
    from onnx_cgmq.api.curve import curve
    from onnx_cgmq.api.curve_points import Curve, CurvePoint
    from onnx_cgmq.api.drop import Drop
    from onnx_cgmq.api.explain import explain
    from onnx_cgmq.api.export import EncodingFormat, Exported, export_encodings
    from onnx_cgmq.api.float_agreement import FloatAgreement
    from onnx_cgmq.api.pipeline import quantize
    from onnx_cgmq.api.quality import Quality
    from onnx_cgmq.api.result import Result
    from onnx_cgmq.api.sensitivity import Sensitivity, TensorSensitivity, sensitivity
    from onnx_cgmq.api.verification import Check, verify
    from onnx_cgmq.contract.bits import Granularity, GridForm, Ranges, Role
    from onnx_cgmq.contract.decisions import Decision, Verdict
    from onnx_cgmq.contract.events import (
        EpochDone,
        Event,
        Finished,
        Limit,
        Notice,
        PointDone,
        StageDone,
        StageProgress,
        StageStarted,
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
    from onnx_cgmq.settings.config import Config, Direction, Effort, PlanUse
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
    "Curve": "onnx_cgmq.api.curve_points",
    "CurvePoint": "onnx_cgmq.api.curve_points",
    "DataError": "onnx_cgmq.errors",
    "DataFiles": "onnx_cgmq.settings.data_files",
    "Direction": "onnx_cgmq.settings.config",
    "Decision": "onnx_cgmq.contract.decisions",
    "Drop": "onnx_cgmq.api.drop",
    "Effort": "onnx_cgmq.settings.config",
    "EncodingFormat": "onnx_cgmq.api.export",
    "EpochDone": "onnx_cgmq.contract.events",
    "Exported": "onnx_cgmq.api.export",
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
    "PlanUse": "onnx_cgmq.settings.config",
    "PlanCost": "onnx_cgmq.contract.plan",
    "PointDone": "onnx_cgmq.contract.events",
    "Quality": "onnx_cgmq.api.quality",
    "Ranges": "onnx_cgmq.contract.bits",
    "Report": "onnx_cgmq.inspection",
    "Result": "onnx_cgmq.api.result",
    "Role": "onnx_cgmq.contract.bits",
    "Sensitivity": "onnx_cgmq.api.sensitivity",
    "StageDone": "onnx_cgmq.contract.events",
    "StageProgress": "onnx_cgmq.contract.events",
    "StageStarted": "onnx_cgmq.contract.events",
    "Started": "onnx_cgmq.contract.events",
    "StepDone": "onnx_cgmq.contract.events",
    "Target": "onnx_cgmq.settings.target",
    "TensorPlan": "onnx_cgmq.contract.plan",
    "TensorReport": "onnx_cgmq.inspection",
    "TensorSensitivity": "onnx_cgmq.api.sensitivity",
    "Timing": "onnx_cgmq.api.benchmark",
    "UnsupportedOperatorError": "onnx_cgmq.errors",
    "Verdict": "onnx_cgmq.contract.decisions",
    "VerificationError": "onnx_cgmq.errors",
    "bench": "onnx_cgmq.api.benchmark",
    "calibrate": "onnx_cgmq.learn.calibrate",
    "curve": "onnx_cgmq.api.curve",
    "equalize": "onnx_cgmq.preparation.equalize",
    "export_encodings": "onnx_cgmq.api.export",
    "explain": "onnx_cgmq.api.explain",
    "insert_gates": "onnx_cgmq.gating.insert",
    "html_report": "onnx_cgmq.reporting.html_report",
    "inspect": "onnx_cgmq.inspection",
    "prepare": "onnx_cgmq.preparation.prepare",
    "quantize": "onnx_cgmq.api.pipeline",
    "sensitivity": "onnx_cgmq.api.sensitivity",
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
    "Curve",
    "CurvePoint",
    "DataError",
    "DataFiles",
    "Decision",
    "Direction",
    "Drop",
    "Effort",
    "EncodingFormat",
    "EpochDone",
    "Event",
    "Exported",
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
    "PlanUse",
    "PointDone",
    "Quality",
    "Ranges",
    "Report",
    "Result",
    "Role",
    "Sensitivity",
    "StageDone",
    "StageProgress",
    "StageStarted",
    "Started",
    "StepDone",
    "Target",
    "TensorPlan",
    "TensorReport",
    "TensorSensitivity",
    "Timing",
    "UnsupportedOperatorError",
    "Verdict",
    "VerificationError",
    "__version__",
    "bench",
    "calibrate",
    "curve",
    "equalize",
    "explain",
    "export_encodings",
    "html_report",
    "insert_gates",
    "inspect",
    "prepare",
    "quantize",
    "sensitivity",
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
