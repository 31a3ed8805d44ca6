"""Encodings as onnxruntime's ``TensorQuantOverrides``, in JSON.

The JSON has names of ``QuantType`` (``"QUInt8"``) where ``quantize_static`` takes its members.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from onnx_cgmq.contract.bits import GridForm, Role
from onnx_cgmq.contract.encodings import Encoding, Encodings, listed

_SIGNED: Final = {4: "QInt4", 8: "QInt8", 16: "QInt16"}
_UNSIGNED: Final = {4: "QUInt4", 8: "QUInt8", 16: "QUInt16"}
_TYPES: Final = {
    name: (width, signed)
    for signed, names in ((True, _SIGNED), (False, _UNSIGNED))
    for width, name in names.items()
}
_GRID: Final = frozenset({"quant_type", "symmetric", "scale", "zero_point", "rmin", "rmax"})
_KEYS: Final = _GRID | {"axis", "reduce_range"}


def to_overrides(encodings: Encodings) -> tuple[str, tuple[str, ...]]:
    """Makes the JSON text of ``TensorQuantOverrides``.

    Returns:
        The text, and notes on what it does not say.

    Raises:
        ValueError: A tensor has a width for which onnxruntime has no type, or channels on an axis
            that is not known; the message names it.
    """
    floats = [name for name, encoding in encodings.items() if encoding.is_float]
    narrow = [name for name, e in encodings.items() if not e.is_float and e.width not in _SIGNED]
    if narrow:
        raise ValueError(
            f"{listed(narrow)} of 2 bits: TensorQuantOverrides have types of 4, 8 and 16 bits "
            "only; export as aimet, or quantize with --widths 4,8"
        )
    text = json.dumps(
        {name: _entries(name, e) for name, e in encodings.items() if not e.is_float}, indent=2
    )
    notes = []
    if floats:
        notes.append(
            f"{listed(floats)} stay float, which TensorQuantOverrides can't say: keep them out of "
            "quantize_static with nodes_to_exclude"
        )
    wide = [
        name
        for name, e in encodings.items()
        if e.role is Role.ACTIVATION and not e.is_float and e.form is GridForm.SYMMETRIC
    ]
    if wide:
        notes.append(
            f"{listed(wide)}: onnxruntime's signed types have one code more below zero than the "
            "symmetric grids of these activations"
        )
    return text, tuple(notes)


def _entries(name: str, encoding: Encoding) -> list[dict[str, Any]]:
    assert encoding.step is not None
    signed = encoding.form is GridForm.SYMMETRIC
    quant_type = (_SIGNED if signed else _UNSIGNED)[encoding.width]
    steps = encoding.step.reshape(-1).astype(np.float64).tolist()
    zeros = encoding.zero_point.reshape(-1).tolist()
    entries: list[dict[str, Any]] = [
        {"quant_type": quant_type, "scale": step, "zero_point": zero}
        for step, zero in zip(steps, zeros, strict=True)
    ]
    if encoding.step.ndim:
        if encoding.axis is None:
            raise ValueError(
                f"tensor '{name}' has channels, but nothing says on which axis; export the plan or "
                "model of onnx-cgmq instead"
            )
        entries[0]["axis"] = encoding.axis
    return entries


def from_overrides(fields: Mapping[str, Any]) -> Encodings:
    """Reads ``TensorQuantOverrides``. A tensor with an axis is taken for a weight.

    Raises:
        ValueError: They are damaged, or say what encodings here can't; the message names the
            tensor.
    """
    found: Encodings = {}
    for name, entries in fields.items():
        try:
            if not isinstance(entries, list) or not all(isinstance(e, Mapping) for e in entries):
                raise ValueError("its overrides are not a list of objects")
            encoding = _encoding(entries)
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            raise ValueError(f"tensor '{name}': {error}") from error
        if encoding is not None:
            found[name] = encoding
    return found


def _encoding(entries: list[Mapping[str, Any]]) -> Encoding | None:
    """Reads the overrides of a tensor; ``None`` if they leave the width to onnxruntime."""
    unknown = sorted({key for entry in entries for key in entry} - _KEYS)
    if unknown:
        raise ValueError(
            f"{', '.join(map(repr, unknown))} can't be taken over; remove this, or leave the "
            "tensor out"
        )
    first = entries[0] if entries else {}
    if "quant_type" not in first:
        if any(_GRID & entry.keys() for entry in entries):
            raise ValueError("it has no quant_type, so its width is not known; add one")
        return None
    if len({str(entry.get("quant_type", first["quant_type"])) for entry in entries}) > 1:
        raise ValueError("its channels have different types")
    quant_type = str(first["quant_type"]).rpartition(".")[2]
    if quant_type not in _TYPES:
        raise ValueError(f"a type of {quant_type!r}; onnx-cgmq takes {', '.join(_TYPES)}")
    width, signed = _TYPES[quant_type]
    axis = first.get("axis")
    if axis is not None and type(axis) is not int:
        raise ValueError(f"an axis of {axis!r}, which is no whole number")
    role = Role.ACTIVATION if axis is None else Role.WEIGHT
    grids = [_grid(entry, width, signed) for entry in entries]
    known = [grid for grid in grids if grid is not None]
    if not known:
        return Encoding(role=role, width=width, axis=axis)
    if len(known) < len(grids):
        raise ValueError("only some of its channels have a scale or a range")
    shape = () if axis is None else (-1,)
    step = np.array([step for step, _ in known], dtype=np.float32).reshape(shape)
    zero_point = np.array([zero for _, zero in known], dtype=np.int64).reshape(shape)
    form = GridForm.AFFINE
    if signed and not zero_point.any():
        form = GridForm.SYMMETRIC
    elif not signed and not zero_point.any():
        form = GridForm.UNSIGNED
    elif signed:
        zero_point = zero_point + 2 ** (width - 1)
    most = 2**width - 1
    if form is GridForm.AFFINE and ((zero_point < 0) | (zero_point > most)).any():
        raise ValueError(f"a zero point that {quant_type} does not have")
    return Encoding.create(
        role=role, width=width, form=form, step=step, zero_point=zero_point, axis=axis
    )


def _grid(entry: Mapping[str, Any], width: int, signed: bool) -> tuple[float, int] | None:
    """Step and zero point of a channel; ``None`` if onnxruntime is to find them."""
    if "scale" in entry or "zero_point" in entry:
        zero = np.array(entry["zero_point"]).reshape(())
        if zero.dtype.kind not in "iu":
            raise ValueError(f"a zero point of {entry['zero_point']!r}, which is no whole number")
        return float(np.array(entry["scale"]).reshape(())), int(zero)
    if "rmin" not in entry and "rmax" not in entry:
        return None
    low, high = min(0.0, float(entry["rmin"])), max(0.0, float(entry["rmax"]))
    smallest = -(2 ** (width - 1)) if signed else 0
    if entry.get("symmetric"):
        high = max(-low, high)
        step = 2 * high / (2**width - 1)
        return step, 0 if signed else 2 ** (width - 1)
    step = (high - low) / (2**width - 1)
    return step, round(smallest - low / step) if step > 0 else 0
