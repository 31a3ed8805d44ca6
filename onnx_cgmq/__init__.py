"""Bit-widths for ONNX models, learned under a guaranteed bound (CGMQ)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from onnx_cgmq.api.benchmark import bench
    from onnx_cgmq.api.pipeline import Result, quantize
    from onnx_cgmq.api.verification import verify
    from onnx_cgmq.contract.plan import BitPlan
    from onnx_cgmq.errors import CgmqError
    from onnx_cgmq.gating.insert import insert_gates
    from onnx_cgmq.inspection import inspect
    from onnx_cgmq.learn.calibrate import calibrate
    from onnx_cgmq.learn.guide import Guide
    from onnx_cgmq.mirror.module import Mirror
    from onnx_cgmq.preparation.prepare import prepare
    from onnx_cgmq.settings.config import Config
    from onnx_cgmq.settings.target import Target
    from onnx_cgmq.writing.write_back import write_back

# Names load on first use: importing the package must not load torch.
_MODULES = {
    "BitPlan": "onnx_cgmq.contract.plan",
    "CgmqError": "onnx_cgmq.errors",
    "Config": "onnx_cgmq.settings.config",
    "Guide": "onnx_cgmq.learn.guide",
    "Mirror": "onnx_cgmq.mirror.module",
    "Result": "onnx_cgmq.api.pipeline",
    "Target": "onnx_cgmq.settings.target",
    "bench": "onnx_cgmq.api.benchmark",
    "calibrate": "onnx_cgmq.learn.calibrate",
    "insert_gates": "onnx_cgmq.gating.insert",
    "inspect": "onnx_cgmq.inspection",
    "prepare": "onnx_cgmq.preparation.prepare",
    "quantize": "onnx_cgmq.api.pipeline",
    "verify": "onnx_cgmq.api.verification",
    "write_back": "onnx_cgmq.writing.write_back",
}

__all__ = [
    "BitPlan",
    "CgmqError",
    "Config",
    "Guide",
    "Mirror",
    "Result",
    "Target",
    "__version__",
    "bench",
    "calibrate",
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
