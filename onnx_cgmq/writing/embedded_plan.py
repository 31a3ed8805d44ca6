"""The plan inside the file: what codes alone can't say, and no second copy of what they can."""

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
"""What the names of quantized values end with."""

_PACK_ABOVE: Final = 512  # characters; a shorter plan stays readable
_PACKED: Final = "zlib_base85:"


def embed_plan(
    model: ir.Model,
    plan: BitPlan,
    specs: Mapping[str, QuantizerSpec],
    names: Mapping[str, str] | None = None,
) -> None:
    """Puts a plan into a model's metadata: what :mod:`~onnx_cgmq.inspection` can't read off it.

    A long text is packed: the plan beside the file is the one to read.

    Args:
        model: The written model.
        plan: Its plan.
        specs: Its quantizers by tensor name.
        names: Names of tensors by the names of values in the file, where they differ.
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
            owner["as"] = value  # its name is in the text once
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
    """The tensors' entries of an embedded plan; empty if there is none.

    An entry has ``ladder`` and ``range``; ``granularity`` unless that is one width per tensor;
    ``widths`` and ``step`` where the graph can't say them; for ``element`` the ``grid_width``.

    Raises:
        ModelError: The plan is damaged, or of a version that this onnx-cgmq can't read.
    """
    fields = _fields(model)
    if fields is None:
        return {}
    with _damage_reported():
        return {
            name: _read_entry({"ladder": fields["ladder"], **entry})
            for name, entry in fields["tensors"].items()
        }


def embedded_names(model: ir.Model) -> dict[str, str]:
    """Names of tensors by the names of values in the file, where they differ.

    Raises:
        ModelError: The plan is damaged, or of a version that this onnx-cgmq can't read.
    """
    fields = _fields(model)
    if fields is None:
        return {}
    with _damage_reported():
        names = {str(value): str(name) for value, name in fields.get("names", {}).items()}
        for name, entry in fields["tensors"].items():
            if "as" in entry:
                names[str(entry["as"])] = f"{name}{QUANTIZED}"
    return names


def _fields(model: ir.Model) -> dict[str, Any] | None:
    text = model.metadata_props.get(PLAN_KEY)
    if text is None:
        return None
    with _damage_reported():
        fields: dict[str, Any] = json.loads(_unpack(text, most_metadata(model)))
        version = fields["version"]
    if version != PLAN_VERSION:
        raise ModelError(f"bit plan version {version!r}; this onnx-cgmq reads {PLAN_VERSION}")
    return fields


@contextmanager
def _damage_reported() -> Iterator[None]:
    """Whatever reading stumbles over means that the plan is damaged."""
    try:
        yield
    except (*DAMAGE, zlib.error) as error:
        raise ModelError(
            f"the bit plan in the model's metadata is damaged: {one_line(error)}; "
            f"write the model again, or remove {PLAN_KEY!r}"
        ) from error


def _entry(tensor: TensorPlan, spec: QuantizerSpec) -> dict[str, Any]:
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
    if tensor.role is Role.WEIGHT and mixes_floats:  # a float initializer, partly on grids
        entry["step"] = short_numbers(tensor.step)
    if "step" in entry or not _widths_are_read(tensor):
        entry["widths"] = _digits(tensor.widths)
    return entry


def _widths_are_read(tensor: TensorPlan) -> bool:
    """Whether the graph says all widths of a tensor."""
    if tensor.role is Role.ACTIVATION:
        return tensor.granularity is not Granularity.TENSOR
    return tensor.role is Role.WEIGHT and tensor.granularity is Granularity.ELEMENT


def _rounded(number: np.floating[Any]) -> float:
    """Four significant digits: they are for reading only."""
    return float(f"{number:.4g}")


def _digits(widths: npt.NDArray[np.int64]) -> Any:
    """One width as a number; more as their shape and a digit of base 36 for each."""
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
        read["widths"] = _allowed(_widths(entry["widths"])).astype(np.uint8)
    if "step" in entry:
        read["step"] = np.array(entry["step"], dtype=np.float32)
    if not all(np.isfinite(read.get(field, 0)).all() for field in ("range", "step")):
        raise ValueError("a range or step is not finite")
    return read


def _widths(digits: Any) -> npt.NDArray[np.int64]:
    if isinstance(digits, int):
        return np.array(digits, dtype=np.int64)
    shape, text = digits
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
