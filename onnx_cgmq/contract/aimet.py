"""Encodings as JSON of AIMET: written in version 1.0.0, read in 1.0.0 and 0.6.1.

An offset there is the smallest code, less the zero point; a symmetric grid whose offset is
``-(2**(b-1)-1)`` is what AIMET calls strict symmetric.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import numpy as np

from onnx_cgmq.contract.bits import FLOAT_BITS, GridForm, Role
from onnx_cgmq.contract.encodings import WIDTHS, Encoding, Encodings, smallest_code

_VERSIONS: Final = ("1.0.0", "0.6.1")
_ROLES: Final = {"activation_encodings": Role.ACTIVATION, "param_encodings": Role.WEIGHT}


def to_aimet(encodings: Encodings) -> str:
    """Makes encodings JSON of AIMET, version 1.0.0. Tensors without an entry are floats there."""
    entries: dict[str, list[dict[str, Any]]] = {group: [] for group in _ROLES}
    for name, encoding in encodings.items():
        if not encoding.is_float:
            activation = encoding.role is Role.ACTIVATION
            group = "activation_encodings" if activation else "param_encodings"
            entries[group].append({"name": name, **_entry(encoding)})
    fields = {"version": _VERSIONS[0], **entries, "producer": "onnx-cgmq"}
    return json.dumps(fields, indent=2)


def _entry(encoding: Encoding) -> dict[str, Any]:
    assert encoding.step is not None
    channels = encoding.step.ndim
    return {
        "enc_type": "PER_CHANNEL" if channels else "PER_TENSOR",
        "dtype": "INT",
        "bw": encoding.width,
        "is_sym": encoding.form.is_symmetric,
        "scale": encoding.step.reshape(-1).astype(np.float64).tolist(),
        "offset": np.broadcast_to(smallest_code(encoding), encoding.step.shape)
        .reshape(-1)
        .tolist(),
    }


def is_aimet(fields: Mapping[str, Any]) -> bool:
    """Whether JSON fields are encodings of AIMET."""
    return not _ROLES.keys().isdisjoint(fields) or "encodings" in fields


def from_aimet(fields: Mapping[str, Any]) -> Encodings:
    """Reads encodings of AIMET.

    Raises:
        ValueError: They have another version, are damaged, or say what encodings here can't; the
            message names the tensor.
    """
    version = fields.get("version")
    if version not in _VERSIONS:
        raise ValueError(
            f"version {version!r} of AIMET's encodings; export them with encoding_version='1.0.0'"
        )
    found: Encodings = {}
    for group, role in _ROLES.items():
        entries = _entries(fields[group], str(version)) if group in fields else ()
        for name, entry in entries:
            if name in found:
                raise ValueError(f"tensor '{name}' has two encodings; remove one of them")
            try:
                found[name] = _encoding(entry, role)
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                what = f"it has no {error}" if isinstance(error, KeyError) else str(error)
                raise ValueError(f"tensor '{name}': {what}") from error
    return found


def _entries(group: Any, version: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields names and entries of version 1.0.0, whatever version they are."""
    if version == "0.6.1":
        if not isinstance(group, Mapping):
            raise ValueError("version 0.6.1 has an object of tensor names")
        for name, channels in group.items():
            yield str(name), _as_1_0_0(str(name), channels)
        return
    if not isinstance(group, list | tuple):
        raise ValueError("version 1.0.0 has a list of encodings")
    for entry in group:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
            raise ValueError(f"an encoding has no name: {str(entry)[:80]}")
        yield entry["name"], entry


def _as_1_0_0(name: str, channels: Any) -> Mapping[str, Any]:
    if not isinstance(channels, list) or not channels:
        raise ValueError(f"tensor '{name}': its encoding is not a list of channels")
    try:
        first = channels[0]
        fields: dict[str, Any] = {
            "enc_type": "PER_TENSOR" if len(channels) == 1 else "PER_CHANNEL",
            "dtype": str(first["dtype"]).upper(),
            "bw": first["bitwidth"],
        }
        if fields["dtype"] == "INT":
            fields["is_sym"] = _same(channel["is_symmetric"] for channel in channels) == "True"
            fields["bw"] = _same(channel["bitwidth"] for channel in channels)
            fields["scale"] = [channel["scale"] for channel in channels]
            fields["offset"] = [channel["offset"] for channel in channels]
    except (KeyError, TypeError) as error:
        raise ValueError(f"tensor '{name}': its encoding lacks {error}") from error
    return fields


def _same(values: Iterable[Any]) -> Any:
    first, *others = values
    if any(other != first for other in others):
        raise ValueError("its channels have different widths or kinds of grids")
    return first


def _encoding(entry: Mapping[str, Any], role: Role) -> Encoding:
    width = entry["bw"]
    if entry["dtype"] == "FLOAT":
        if width not in (16, FLOAT_BITS):
            raise ValueError(f"floats of {width} bits, which onnx-cgmq does not have; remove it")
        return Encoding(role=role, width=FLOAT_BITS)
    kind = entry["enc_type"]
    if entry["dtype"] != "INT" or kind not in ("PER_TENSOR", "PER_CHANNEL"):
        raise ValueError(
            f"{entry['dtype']} {kind}, which onnx-cgmq does not have; give it PER_TENSOR or "
            "PER_CHANNEL of INT"
        )
    if width not in WIDTHS:
        raise ValueError(f"{width!r} bits; onnx-cgmq has {', '.join(map(str, WIDTHS))}")
    if width == FLOAT_BITS:  # the INT32 of a bias
        return Encoding(role=role, width=FLOAT_BITS)
    shape = (-1,) if kind == "PER_CHANNEL" else ()
    step = np.array(entry["scale"], dtype=np.float32).reshape(shape)
    real = np.array(entry["offset"], dtype=np.float64).reshape(shape)
    offset = real.astype(np.int64)
    if (offset != real).any() or np.any(entry.get("zero_point_shift", 0)):
        raise ValueError("an offset is not a whole number, so that zero is not on the grid")
    if not isinstance(entry["is_sym"], bool):
        raise ValueError(f"is_sym is {entry['is_sym']!r}, not true or false")
    return Encoding.create(
        role=role, width=width, step=step, **grid_of_offset(offset, width, entry["is_sym"])
    )


def grid_of_offset(offset: Any, width: int, symmetric: bool) -> dict[str, Any]:
    """Form and zero point of a grid whose codes start at an offset.

    A signed grid with one code more below zero than above is an affine one here.
    """
    zero = np.zeros_like(offset)
    if symmetric and (offset == -(2 ** (width - 1) - 1)).all():
        return {"form": GridForm.SYMMETRIC, "zero_point": zero}
    if (offset == 0).all():
        return {"form": GridForm.UNSIGNED, "zero_point": zero}
    if ((offset > 0) | (offset < -(2**width - 1))).any():
        raise ValueError(f"an offset of {offset.reshape(-1)[0]} leaves zero out of the grid")
    return {"form": GridForm.AFFINE, "zero_point": -offset}
