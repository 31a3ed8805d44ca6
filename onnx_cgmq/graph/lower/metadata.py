"""The plan inside the file: what codes alone can't say, and no second copy of what they can."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import onnx_ir as ir

from onnx_cgmq.bits import FLOAT_BITS, Granularity, Role
from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.quantizer_spec import QuantizerSpec
from onnx_cgmq.plan import PLAN_VERSION, BitPlan, TensorPlan

PLAN_KEY: Final = "onnx_cgmq.plan"
"""Key of the plan in the model's ``metadata_props``."""


def embed_plan(model: ir.Model, plan: BitPlan, specs: Mapping[str, QuantizerSpec]) -> None:
    """Puts a plan into a model's metadata.

    Every tensor also gets its ``ladder`` and ``grid_width``. Arrays with an entry per element are
    left out where the graph holds them: the codes of weights, the nodes of activations.
    """
    fields = plan.model_dump(mode="json")
    for name, entry in fields["tensors"].items():
        tensor = plan.tensors[name]
        entry["ladder"] = list(specs[name].ladder.widths)
        entry["grid_width"] = tensor.grid_width
        if _is_in_graph(tensor):
            for key in ("widths", "step", "zero_point"):
                del entry[key]
    model.metadata_props[PLAN_KEY] = json.dumps(fields, separators=(",", ":"))


def embedded_tensors(model: ir.Model) -> dict[str, dict[str, Any]]:
    """The tensors' entries of an embedded plan; empty if there is none.

    Raises:
        ModelError: It is not JSON, or of a version that this onnx-cgmq can't read.
    """
    text = model.metadata_props.get(PLAN_KEY)
    if text is None:
        return {}
    try:
        fields = json.loads(text)
        version, tensors = fields["version"], dict(fields["tensors"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"the bit plan in the model's metadata is damaged: {error}") from error
    if version != PLAN_VERSION:
        raise ModelError(f"bit plan version {version!r}; this onnx-cgmq reads {PLAN_VERSION}")
    return tensors


def _is_in_graph(tensor: TensorPlan) -> bool:
    if tensor.granularity is not Granularity.ELEMENT or tensor.role is Role.BIAS:
        return False
    mixed_float = tensor.role is Role.WEIGHT and tensor.grid_width == FLOAT_BITS
    return not mixed_float
