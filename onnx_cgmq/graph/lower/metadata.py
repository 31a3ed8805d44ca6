"""The plan inside the file: what codes alone can't say, and no second copy of what they can."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.bits import FLOAT_BITS, Granularity, Role
from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.gating.quantizer_spec import QuantizerSpec
from onnx_cgmq.plan import PLAN_VERSION, BitPlan, TensorPlan

PLAN_KEY: Final = "onnx_cgmq.plan"
"""Key of the plan in the model's ``metadata_props``."""

_ARRAYS: Final[dict[str, npt.DTypeLike]] = {
    "widths": np.uint8,
    "low": np.float32,
    "high": np.float32,
    "step": np.float32,
    "zero_point": np.uint16,
}
_PACK_ABOVE: Final = 1 << 12  # characters; a shorter plan stays readable
_PACKED: Final = "zlib_base64:"


def embed_plan(model: ir.Model, plan: BitPlan, specs: Mapping[str, QuantizerSpec]) -> None:
    """Puts a plan into a model's metadata.

    Every tensor also gets its ``ladder`` and ``grid_width``. Arrays that repeat what the graph
    holds (steps, and what is there per element) are left out. A long text is packed: the plan
    beside the file is the one to read.
    """
    fields = plan.model_dump(mode="json", exclude={"tensors"})
    fields["tensors"] = {}
    for name, tensor in plan.tensors.items():
        entry = tensor.model_dump(mode="json", exclude={*_ARRAYS, "name"})
        entry["ladder"] = list(specs[name].ladder.widths)
        entry["grid_width"] = tensor.grid_width
        left_out = _in_graph(tensor)
        for key, dtype in _ARRAYS.items():
            if key not in left_out:
                entry[key] = _short(getattr(tensor, key).astype(dtype))
        fields["tensors"][name] = entry
    text = json.dumps(fields, separators=(",", ":"))
    model.metadata_props[PLAN_KEY] = text if len(text) <= _PACK_ABOVE else _pack(text)


def embedded_tensors(model: ir.Model) -> dict[str, dict[str, Any]]:
    """The tensors' entries of an embedded plan, arrays unpacked; empty if there is none.

    Raises:
        ModelError: It is damaged, or of a version that this onnx-cgmq can't read.
    """
    text = model.metadata_props.get(PLAN_KEY)
    if text is None:
        return {}
    try:
        fields = json.loads(_unpack(text))
        version = fields["version"]
        if version != PLAN_VERSION:
            raise ModelError(f"bit plan version {version!r}; this onnx-cgmq reads {PLAN_VERSION}")
        tensors: dict[str, dict[str, Any]] = fields["tensors"]
        for entry in tensors.values():
            for key, dtype in _ARRAYS.items():
                if key in entry:
                    entry[key] = np.array(entry[key], dtype=dtype)
    except (ValueError, KeyError, TypeError, AttributeError, zlib.error) as error:
        raise ModelError(f"the bit plan in the model's metadata is damaged: {error}") from error
    return tensors


def _in_graph(tensor: TensorPlan) -> set[str]:
    """Arrays that the graph holds or that follow from the others."""
    if tensor.role is Role.WEIGHT and tensor.grid_width == FLOAT_BITS and not tensor.is_float:
        return set()  # a float initializer that mixes grids
    if tensor.role is Role.ACTIVATION and tensor.granularity is not Granularity.TENSOR:
        return {"widths", "step", "zero_point"}
    if tensor.granularity is Granularity.TENSOR:
        return set()
    if tensor.role is Role.WEIGHT and tensor.granularity is Granularity.ELEMENT:
        return {"widths", "step", "zero_point"}
    return {"step", "zero_point", "low"}


def _short(array: npt.NDArray[Any]) -> Any:
    """Numbers as lists, floats in the fewest decimals that give the same float32."""
    if array.dtype.kind != "f":
        return array.tolist()
    return np.array([float(str(v)) for v in array.reshape(-1)]).reshape(array.shape).tolist()


def _pack(text: str) -> str:
    return _PACKED + base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def _unpack(text: str) -> str:
    if not text.startswith(_PACKED):
        return text
    return zlib.decompress(base64.b64decode(text.removeprefix(_PACKED))).decode()
