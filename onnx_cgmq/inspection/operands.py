"""Reads all operands of a quantized model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnx_cgmq.contract.bits import FLOAT_BITS, INTEGER_KERNEL_BITS, Role
from onnx_cgmq.cost.macs import Source, float_name
from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.layouts import permutation, transposes_above
from onnx_cgmq.graph.mac_operators import OpSpec
from onnx_cgmq.graph.nodes import operator_key
from onnx_cgmq.graph.operators import lookup_spec, mac_spec
from onnx_cgmq.inspection.claims import Claim
from onnx_cgmq.inspection.implicit_operands import (
    GATHER_BLOCK_QUANTIZED,
    ImplicitOperand,
    implicit_operand,
)
from onnx_cgmq.inspection.patterns.grid import scalar
from onnx_cgmq.inspection.reading import Reading, read_operand, stored_tensor

_Key = tuple[ir.Value, ImplicitOperand | None]
"""A value, and what the operator that reads it says about it."""


class Operands:
    """The operands of MAC nodes, and embedding tables.

    Attributes:
        readings: What the file says about every tensor, by name. A tensor that nodes read at
            several widths (quantized and as float, for example) has an entry for each.
    """

    def __init__(self, model: ir.Model, claims: Mapping[str, Claim]) -> None:
        """Reads the operands of a model.

        Args:
            model: The model.
            claims: The entries of the embedded plan by tensor name.
        """
        self.readings: dict[str, Reading] = {}
        self._sources: dict[_Key, Source] = {}
        axes: dict[_Key, set[int | None]] = {}
        for key, axis in _operands(model):
            axes.setdefault(key, set()).add(axis)
        found = {
            key: _read(*key, claims, read.pop() if len(read) == 1 else None)
            for key, read in axes.items()
        }
        self._doubted = {value for (value, _), (reading, _) in found.items() if reading.note}
        quantized = {r.name for r, _ in found.values() if not _is_float(r)}
        for key, (reading, path) in found.items():
            name = reading.name
            if _is_float(reading) and name in quantized:
                name = float_name(name)
            name = self._unused_name(name, reading)
            self.readings.setdefault(name, replace(reading, name=name))
            self._sources[key] = Source(name, path)

    def is_doubted(self, value: ir.Value) -> bool:
        """Whether the width of an operand could not be told or believed."""
        return value in self._doubted

    def source(self, node: ir.Node, index: int) -> Source:
        """Finds the tensor that an operand stands for.

        An operand that was not read stands for itself: it is one that never has a quantizer, such
        as the past keys of an attention.

        Args:
            node: The node.
            index: Index of the input that is the operand.
        """
        value = node.inputs[index]
        assert value is not None
        name = str(value.name)
        return self._sources.get((value, implicit_operand(node, index))) or Source(
            float_name(name) if name in self.readings else name
        )

    def _unused_name(self, name: str, reading: Reading) -> str:
        """Makes a name that no tensor with other widths has.

        Two quantizers may round the same tensor to different widths, which then gets two names.
        """
        unused, count = name, 1
        while (other := self.readings.get(unused)) and not _reads_the_same(other, reading):
            count += 1
            unused = f"{name} ({count})"
        return unused


def _read(
    value: ir.Value,
    implicit: ImplicitOperand | None,
    claims: Mapping[str, Claim],
    axis: int | None,
) -> tuple[Reading, tuple[ir.Node, ...]]:
    """Reads one operand.

    Args:
        value: The value that a node reads.
        implicit: What the operator of the node says about it.
        claims: The entries of the embedded plan by tensor name.
        axis: The axis of ``value`` that counts output channels, or rows of a table; ``None`` if
            there is none.

    Returns:
        What the file says, and the Transpose nodes between the tensor and ``value``.
    """
    stored, path = _before_transposes(value)
    if path and axis is not None:
        axes = permutation(path, len(value.shape or ()))
        axis = axes[axis] if axis < len(axes) else None
    reading = read_operand(stored, claims, axis)
    if implicit is None:
        return reading, path
    shape = reading.shape if implicit.shape is None else implicit.shape
    if reading.stored_bits and math.prod(shape) * implicit.bits > 8 * -(-reading.stored_bits // 8):
        raise ModelError(
            f"tensor {reading.name!r}: its node says {math.prod(shape):,} codes of {implicit.bits} "
            f"bits, but the file holds {reading.stored_bits:,} bits; export the model again"
        )
    return replace(reading, widths=scalar(implicit.bits), shape=shape, note=""), path


def _operands(model: ir.Model) -> Iterator[tuple[_Key, int | None]]:
    """Lists all operands of MAC nodes, and all embedding tables.

    Each comes with its axis that counts output channels, or rows of a table.
    """
    for node in model.graph.all_nodes():
        spec = mac_spec(node)
        for index, value in spec.operand_values(node) if spec is not None else ():
            yield (value, implicit_operand(node, index)), _channels(spec, node, index, value)
        if operator_key(node) == GATHER_BLOCK_QUANTIZED and node.inputs[0] is not None:
            yield (node.inputs[0], implicit_operand(node, 0)), None
        lookup = lookup_spec(node)
        for _, value in lookup.operand_values(node) if lookup is not None else ():
            table = stored_tensor(value)
            if table is not None and len(table.shape) > 1 and _is_table(value):
                yield (value, None), _channels(lookup, node, 0, value)


def _channels(spec: OpSpec | None, node: ir.Node, index: int, value: ir.Value) -> int | None:
    if spec is None or value.shape is None or not len(value.shape):
        return None
    return spec.output_axis(node, index, len(value.shape))


def _is_table(value: ir.Value) -> bool:
    """Says whether a Gather reads floats or codes; wider integers are indexes and shapes."""
    dtype = value.dtype if value.const_value is None else value.const_value.dtype
    return dtype is ir.DataType.FLOAT or (
        dtype is not None and dtype.is_integer() and dtype.bitwidth <= INTEGER_KERNEL_BITS
    )


def _before_transposes(value: ir.Value) -> tuple[ir.Value, tuple[ir.Node, ...]]:
    """Returns a weight before it is transposed, and the Transpose nodes; or any other value."""
    path = transposes_above(value)
    source = path[-1].inputs[0] if path else None
    if source is None or stored_tensor(source) is None:
        return value, ()
    return source, path


def _is_float(reading: Reading) -> bool:
    """Says whether an operand has no width below 32."""
    return bool(np.all(reading.widths == FLOAT_BITS))


def _reads_the_same(one: Reading, other: Reading) -> bool:
    """Says whether two operands have the same role and widths, and weights the same size."""
    if one.role is not other.role or not np.array_equal(one.widths, other.widths):
        return False
    weight = one.role is not Role.ACTIVATION
    return not weight or (one.shape, one.stored_bits) == (other.shape, other.stored_bits)
