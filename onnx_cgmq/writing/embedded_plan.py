"""The embedded plan: the part of a plan that a written model keeps in its metadata.

It holds only what types, codes and scales in the graph do not show.
"""

from __future__ import annotations

import base64
import json
import operator
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.contract.bits import FLOAT_BITS, Granularity, Ladder, Role
from onnx_cgmq.contract.identifiers import PLAN_KEY
from onnx_cgmq.contract.plan import PLAN_VERSION, BitPlan, TensorPlan, short_numbers
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.errors import DAMAGE, ModelError, one_line
from onnx_cgmq.graph.files.limits import most_metadata

QUANTIZED: Final = ".quantized"
"""Suffix of the names of quantized values."""

_PACK_ABOVE: Final = 512  # characters; a shorter plan stays readable in the file
_PACKED: Final = "zlib_base85:"


def embed_plan(
    model: ir.Model,
    plan: BitPlan,
    specs: Mapping[str, QuantizerSpec],
    names: Mapping[str, str] | None = None,
) -> None:
    """Puts into a model's metadata what :mod:`~onnx_cgmq.inspection` can't read from its graph.

    A long text is compressed. The plan that is saved beside the file is there to be read.

    Args:
        model: The written model.
        plan: The plan of the model.
        specs: The quantizers by tensor name.
        names: For values that have another name in the file than in the gated model: their former
            names by the names in the file.
    """
    entries = {name: _entry(plan.tensors[name], spec) for name, spec in specs.items()}
    ladders = Counter(tuple(entry["ladder"]) for entry in entries.values())
    ladder = list(ladders.most_common(1)[0][0]) if ladders else []
    for entry in entries.values():
        if entry["ladder"] == ladder:
            del entry["ladder"]
    others = {}
    for value, name in (names or {}).items():
        owner = entries.get(name.removesuffix(QUANTIZED))
        if owner is None or not name.endswith(QUANTIZED):
            others[value] = name
        else:
            owner["as"] = value  # so the name of the tensor is in the text only once
    fields = {
        "version": PLAN_VERSION,
        "bound": plan.bound,
        "ladder": ladder,
        "names": others,
        "tensors": entries,
    }
    text = json.dumps(fields, separators=(",", ":"))
    model.metadata_props[PLAN_KEY] = text if len(text) <= _PACK_ABOVE else _pack(text)


def embedded_tensors(model: ir.Model) -> dict[str, dict[str, Any]]:
    """Reads the entries of tensors in an embedded plan.

    An entry has ``ladder``, and ``range`` if the tensor is a quantized weight or activation. It has
    ``granularity`` unless that is one width per tensor, ``axis`` with ``channel`` widths, and
    ``grid_width`` with ``element`` widths. It has ``widths`` and ``step`` where the graph does not
    show them.

    Returns:
        The entries by tensor name; empty if the model has no embedded plan.

    Raises:
        ModelError: The plan is damaged, or has a version that this onnx-cgmq can't read.
    """
    fields = _fields(model)
    if fields is None:
        return {}
    with _damage_is_an_error():
        return {
            name: _read_entry({"ladder": fields["ladder"], **entry})
            for name, entry in fields["tensors"].items()
        }


def embedded_names(model: ir.Model) -> dict[str, str]:
    """Reads the former names of values that have another name in the file.

    Returns:
        The names in the gated model by the names in the file.

    Raises:
        ModelError: The plan is damaged, or has a version that this onnx-cgmq can't read.
    """
    fields = _fields(model)
    if fields is None:
        return {}
    with _damage_is_an_error():
        names = {str(value): str(name) for value, name in fields.get("names", {}).items()}
        for name, entry in fields["tensors"].items():
            if "as" in entry:
                names[str(entry["as"])] = f"{name}{QUANTIZED}"
    return names


def _fields(model: ir.Model) -> dict[str, Any] | None:
    """Reads the fields of an embedded plan; ``None`` if the model has none."""
    text = model.metadata_props.get(PLAN_KEY)
    if text is None:
        return None
    with _damage_is_an_error():
        fields: dict[str, Any] = json.loads(_unpack(text, most_metadata(model)))
        version = fields["version"]
    if version != PLAN_VERSION:
        raise ModelError(
            f"the bit plan in the model's metadata has version {version!r}, but this onnx-cgmq "
            f"reads version {PLAN_VERSION}; use the onnx-cgmq that wrote the model"
        )
    return fields


@contextmanager
def _damage_is_an_error() -> Iterator[None]:
    """Turns any error of reading a plan into one that says that the plan is damaged."""
    try:
        yield
    except (*DAMAGE, zlib.error) as error:
        raise ModelError(
            f"the bit plan in the model's metadata is damaged: {one_line(error)}; write the model "
            f"again, or remove '{PLAN_KEY}' from its metadata"
        ) from error


def _entry(tensor: TensorPlan, spec: QuantizerSpec) -> dict[str, Any]:
    """Makes the entry of a tensor, as :func:`embedded_tensors` describes it."""
    entry: dict[str, Any] = {"ladder": list(spec.ladder.widths)}
    if tensor.role is not Role.BIAS and not tensor.is_float:
        entry["range"] = [_rounded(tensor.low.min()), _rounded(tensor.high.max())]
    if tensor.granularity is not Granularity.TENSOR:
        entry["granularity"] = tensor.granularity.value
    if tensor.granularity is Granularity.CHANNEL:
        entry["axis"] = tensor.axis
    if tensor.granularity is Granularity.ELEMENT:
        entry["grid_width"] = tensor.grid_width
    mixes_floats = tensor.grid_width == FLOAT_BITS and not tensor.is_float
    if tensor.role is Role.WEIGHT and mixes_floats:  # a float initializer, in part on grids
        entry["step"] = short_numbers(tensor.step)
    if "step" in entry or not _graph_shows_widths(tensor):
        entry["widths"] = _packed_widths(tensor.widths)
    return entry


def _graph_shows_widths(tensor: TensorPlan) -> bool:
    """Says whether the graph of the written model shows all widths of a tensor."""
    if tensor.role is Role.ACTIVATION:
        return tensor.granularity is not Granularity.TENSOR
    return tensor.role is Role.WEIGHT and tensor.granularity is Granularity.ELEMENT


def _rounded(number: np.floating[Any]) -> float:
    """Rounds a number to four significant digits, because it is there for reading only."""
    return float(f"{number:.4g}")


def _packed_widths(widths: npt.NDArray[np.int64]) -> Any:
    """Packs widths: one width as a number, several as their shape and one base-36 digit each."""
    if (widths == widths.flat[0]).all():
        return int(widths.flat[0])
    digits = "".join(np.base_repr(width, 36) for width in widths.reshape(-1))
    return [list(widths.shape), digits]


def _read_entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry whose fields are what readers expect, or one of the errors in ``DAMAGE``."""
    read: dict[str, Any] = {"ladder": Ladder(tuple(entry["ladder"])).widths}
    if "granularity" in entry:
        read["granularity"] = Granularity(entry["granularity"]).value
    if "axis" in entry:
        read["axis"] = operator.index(entry["axis"])
    if "grid_width" in entry:
        read["grid_width"] = int(_allowed(np.array(operator.index(entry["grid_width"]))))
    if "range" in entry:
        low, high = entry["range"]
        read["range"] = [float(low), float(high)]
    if "widths" in entry:
        read["widths"] = _allowed(_unpacked_widths(entry["widths"])).astype(np.uint8)
    if "step" in entry:
        read["step"] = np.array(entry["step"], dtype=np.float32)
    if not all(np.isfinite(read.get(field, 0)).all() for field in ("range", "step")):
        raise ValueError("a range or step is not finite")
    return read


def _unpacked_widths(packed: Any) -> npt.NDArray[np.int64]:
    """Unpacks widths that :func:`_packed_widths` packed."""
    if isinstance(packed, int):
        return np.array(packed, dtype=np.int64)
    shape, text = packed
    widths = np.array([int(digit, 36) for digit in text], dtype=np.int64)
    return widths.reshape([int(size) for size in shape])


def _allowed(widths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The same widths, if a plan may have them."""
    wrong = widths[~np.isin(widths, (0, *Ladder().widths))]
    if wrong.size:
        raise ValueError(f"a width of {wrong.flat[0]} bits")
    return widths


def _pack(text: str) -> str:
    return _PACKED + base64.b85encode(zlib.compress(text.encode(), 9)).decode()


def _unpack(text: str, most: int) -> str:
    if not text.startswith(_PACKED):
        return text
    unpacking = zlib.decompressobj()
    content = unpacking.decompress(base64.b85decode(text.removeprefix(_PACKED)), most)
    if not unpacking.eof:
        raise ValueError(f"it is cut off, or unpacks to more than {most:,} bytes")
    return content.decode()
