"""All operands of a written model, read from the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_cgmq.bits import FLOAT_BITS
from onnx_cgmq.cost.macs import Source, float_name
from onnx_cgmq.graph.layouts import transposes_above
from onnx_cgmq.graph.opspec import lookup_spec, mac_spec
from onnx_cgmq.inspection.reading import Reading, read_operand, stored_codes

Claims = Mapping[str, Mapping[str, Any]]


class Operands:
    """The operands of MAC operators, and the tables of lookups.

    Attributes:
        readings: What the file says about every tensor, by name. A tensor that one operator reads
            quantized and another as it is has an entry for both.
    """

    def __init__(self, model: ir.Model, claims: Claims) -> None:
        """Reads the operands.

        Args:
            model: The model.
            claims: Entries of the embedded plan by tensor name.
        """
        self.readings: dict[str, Reading] = {}
        self._sources: dict[ir.Value, Source] = {}
        found: dict[ir.Value, tuple[Reading, tuple[ir.Node, ...]]] = {}
        for value in _operands(model):
            if value not in found:
                stored, path = _stored(value)
                found[value] = read_operand(stored, claims), path
        quantized = {r.name: r for r, _ in found.values() if not _is_float(r)}
        for value, (reading, path) in found.items():
            if _is_float(reading) and reading.name in quantized:
                reading = replace(reading, name=float_name(reading.name))
            self.readings.setdefault(reading.name, reading)
            self._sources[value] = Source(reading.name, path)

    def source(self, value: ir.Value) -> Source:
        """The tensor that an operand stands for.

        One that never gets a quantizer, such as the keys of the past, is what it is.
        """
        name = str(value.name)
        return self._sources.get(value) or Source(
            float_name(name) if name in self.readings else name
        )


def _operands(model: ir.Model) -> Iterator[ir.Value]:
    for node in model.graph.all_nodes():
        spec = mac_spec(node)
        yield from (value for _, value in spec.operand_values(node)) if spec is not None else ()
        lookup = lookup_spec(node)
        for _, value in lookup.operand_values(node) if lookup is not None else ():
            table = stored_codes(value) or value.const_value
            if table is not None and len(table.shape) > 1 and _is_float_value(value):
                yield value


def _is_float_value(value: ir.Value) -> bool:
    dtype = value.dtype if value.const_value is None else value.const_value.dtype
    return dtype is ir.DataType.FLOAT


def _stored(value: ir.Value) -> tuple[ir.Value, tuple[ir.Node, ...]]:
    """A weight before the Transpose nodes that a file has after it; any other value itself."""
    path = transposes_above(value)
    source = path[-1].inputs[0] if path else None
    if source is None or (stored_codes(source) is None and source.const_value is None):
        return value, ()
    return source, path


def _is_float(reading: Reading) -> bool:
    return bool(np.all(reading.widths == FLOAT_BITS))
