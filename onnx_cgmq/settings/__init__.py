"""Everything that a user may set: the settings of a run, and targets as data."""

from onnx_cgmq.settings.load_target import (
    DEFAULT_TARGET,
    TargetLike,
    built_in_targets,
    load_target,
    target_text,
)
from onnx_cgmq.settings.target import Target

__all__ = [
    "DEFAULT_TARGET",
    "Target",
    "TargetLike",
    "built_in_targets",
    "load_target",
    "target_text",
]
