"""Targets as data: what a kind of hardware or runtime allows, and what it costs there."""

from onnx_cgmq.targets.load import (
    DEFAULT_TARGET,
    TargetLike,
    built_in_targets,
    load_target,
    target_text,
)
from onnx_cgmq.targets.target import Target

__all__ = [
    "DEFAULT_TARGET",
    "Target",
    "TargetLike",
    "built_in_targets",
    "load_target",
    "target_text",
]
