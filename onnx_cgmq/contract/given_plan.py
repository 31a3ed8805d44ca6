"""Reads what a run may start from: a plan, AIMET's encodings, or onnxruntime's overrides."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from onnx_cgmq.contract.aimet import from_aimet, is_aimet
from onnx_cgmq.contract.encodings import Encodings, encodings_of
from onnx_cgmq.contract.plan import BitPlan
from onnx_cgmq.contract.tensor_overrides import from_overrides
from onnx_cgmq.errors import ConfigError, ModelError

_HINT = (
    "give a plan of onnx-cgmq (NAME.plan.json), encodings of AIMET, or TensorQuantOverrides of "
    "onnxruntime, as JSON"
)


class GivenPlan(BaseModel):
    """Widths and ranges that a user gives for a run.

    Attributes:
        source: Where they are from, for messages.
        encodings: The encoding of each tensor.
        own: Whether they are of a plan, so of a model that onnx-cgmq prepared.
        notes: What the encodings leave out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    encodings: Encodings
    own: bool = False
    notes: tuple[str, ...] = ()


PlanLike = str | os.PathLike[str] | Mapping[str, Any] | BitPlan | GivenPlan
"""The path of a JSON file, its content, or a plan."""


def given_plan(plan: PlanLike | None) -> GivenPlan | None:
    """Reads a plan, encodings or overrides; each kind is told by its fields.

    Raises:
        ConfigError: It can't be read, is damaged, or says what a run can't take.
    """
    if plan is None or isinstance(plan, GivenPlan):
        return plan
    if isinstance(plan, BitPlan):
        return _of_plan(plan, "the plan")
    if isinstance(plan, Mapping):
        return _of_fields(plan, "the plan")
    if not isinstance(plan, str | os.PathLike):
        raise ConfigError(f"the plan is a {type(plan).__name__}; {_HINT}")
    path = Path(plan)
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"plan {path} can't be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"plan {path} is not JSON: {error}; {_HINT}") from error
    if not isinstance(fields, dict):
        raise ConfigError(f"plan {path} is not a JSON object; {_HINT}")
    return _of_fields(fields, f"plan {path}")


def _of_fields(fields: Mapping[str, Any], source: str) -> GivenPlan:
    if "tensors" in fields:
        try:
            return _of_plan(BitPlan.from_json(json.dumps(fields)), source)
        except ModelError as error:
            raise ConfigError(f"{source}: {error}") from error
    try:
        read = from_aimet if is_aimet(fields) else from_overrides
        encodings = read(fields)
    except ValueError as error:
        raise ConfigError(f"{source}: {error}") from error
    if not encodings:
        raise ConfigError(f"{source} has no width for any tensor; {_HINT}")
    return GivenPlan(source=source, encodings=encodings)


def _of_plan(plan: BitPlan, source: str) -> GivenPlan:
    try:
        encodings, notes = encodings_of(plan)
    except ValueError as error:
        raise ConfigError(f"{source}: {error}") from error
    return GivenPlan(source=source, encodings=encodings, own=True, notes=notes)
