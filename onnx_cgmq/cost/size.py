"""Counts the size: the bytes of weights, biases and embedding tables in the written file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.contract.bits import FLOAT_BITS, Role
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.cost.bops import Widths
from onnx_cgmq.cost.bound import Amount, CostKind
from onnx_cgmq.cost.geometry import Array
from onnx_cgmq.cost.protocol import listing
from onnx_cgmq.gating.gated_qdq import ACCUMULATOR_OP
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.graph.layouts import constants_read
from onnx_cgmq.writing.storage import WeightTypes


@dataclass(frozen=True)
class Storage:
    """What decides the size of a written model besides the widths.

    Attributes:
        types: The types in which weights may be stored. Not all opsets and versions of onnxruntime
            have INT2 and INT4.
        ungated: Bytes of weights, biases and embedding tables that have no quantizer.
        copies: How many tensors are written of a bias that several nodes add, by its name: one for
            each step that it may be added at. Biases that are not named are written once.
    """

    types: WeightTypes = field(default_factory=WeightTypes)
    ungated: int = 0
    copies: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, model: ir.Model) -> Storage:
        """Finds what decides the size of a gated model."""
        tensors = (value.const_value for value in constants_read(model))
        sizes = (_whole_bytes(t.size * int(t.dtype.bitwidth)) for t in tensors if t is not None)
        return cls(WeightTypes.of(model), sum(sizes), _copies(model))

    def stored_bits(self, spec: QuantizerSpec, widths: npt.NDArray[np.int64]) -> int:
        """Counts the bits that a tensor takes in the file; 0 for activations.

        A weight is stored as one integer tensor, in the narrowest type that holds its widest grid
        and that onnxruntime loads; if blocks have ranges of their own, so have their float steps.
        A weight that is pruned as a whole takes the narrowest type. A
        bias has 32 bits whatever its width is: it is float, or INT32 in units of the accumulator.

        Args:
            spec: The quantizer of the tensor.
            widths: The widths of the tensor.
        """
        if spec.role is Role.ACTIVATION:
            return 0
        width, widest = FLOAT_BITS, int(widths.max())
        if spec.role is Role.WEIGHT and widest < FLOAT_BITS:
            width = self.types.narrowest(widest).bitwidth
        bits = int(np.prod(spec.shape, dtype=np.int64)) * width
        if spec.block is not None and widest < FLOAT_BITS:
            bits += math.prod(spec.range_item_shape) * FLOAT_BITS
        return bits

    def tensor_bytes(self, specs: Mapping[str, QuantizerSpec], widths: Widths) -> dict[str, int]:
        """Counts the bytes of every weight and bias with a quantizer, by its name.

        Args:
            specs: The quantizers by tensor name.
            widths: Widths by tensor name. Tensors without an entry are float.
        """
        full = np.array(FLOAT_BITS, dtype=np.int64)
        return {
            name: self.copies.get(name, 1)
            * _whole_bytes(self.stored_bits(spec, widths.get(name, full)))
            for name, spec in specs.items()
            if spec.role is not Role.ACTIVATION
        }

    def total_bytes(self, specs: Mapping[str, QuantizerSpec], widths: Widths) -> int:
        """Counts the bytes of all weights, biases and embedding tables.

        Args:
            specs: The quantizers by tensor name.
            widths: Widths by tensor name. Tensors without an entry are float.
        """
        return sum(self.tensor_bytes(specs, widths).values()) + self.ungated


@dataclass(frozen=True)
class SizeCost:
    """Bytes of stored weights, biases and embedding tables, as a cost of widths.

    A tensor with many gates is stored at the widest of their widths, so that widening the others
    costs nothing.

    Attributes:
        storage: What decides the size besides the widths.
        specs: The quantizers by tensor name.
    """

    kind: ClassVar[CostKind] = CostKind.SIZE

    storage: Storage
    specs: Mapping[str, QuantizerSpec]

    @property
    def float_cost(self) -> int:
        """The bytes of the float model, which has each bias once."""
        return replace(self.storage, copies={}).total_bytes(self.specs, {})

    def total(self, widths: Widths) -> int:
        """Counts the bytes at some widths."""
        return self.storage.total_bytes(self.specs, widths)

    def saving(
        self, widths: Widths, upper: Widths, lower: Widths, limit: Amount
    ) -> dict[str, Array]:
        """Estimates the bytes that each gate saves (see the protocol ``Cost``).

        Bytes fall only when the last of the widest gates of a tensor narrows. The estimate shares
        them evenly among all gates of the tensor, so that each has a reason to fall.
        """
        return {
            name: self._per_gate(name, widths) * (upper[name] - lower[name])
            for name in self._weights(widths)
        }

    def growth(self, widths: Widths, wider: Widths) -> dict[str, Array]:
        """Counts the bytes that a tensor grows by if one gate alone widens, for every gate."""
        return {
            name: self._growth(name, widths[name], wider[name]) for name in self._weights(widths)
        }

    def dominated_by(self, widths: Widths) -> str:
        """Names the largest tensors."""
        shares = self.storage.tensor_bytes(self.specs, widths)
        if self.storage.ungated:
            shares["without a quantizer"] = self.storage.ungated
        return listing("tensors", shares)

    def _weights(self, widths: Widths) -> list[str]:
        """Lists the weights that have widths; the size of biases does not depend on theirs."""
        return [n for n, spec in self.specs.items() if spec.role is Role.WEIGHT and n in widths]

    def _per_gate(self, name: str, widths: Widths) -> Array:
        """Returns the bytes that one bit takes, shared among the gates of a weight."""
        gates = widths[name]
        share = math.prod(self.specs[name].shape) / 8 / max(1, np.size(gates))
        return np.full(np.shape(gates), share)

    def _growth(
        self, name: str, widths: npt.NDArray[np.int64], wider: npt.NDArray[np.int64]
    ) -> Array:
        """Counts the bytes that a weight grows by if one gate alone widens, for every gate."""
        widest = int(widths.max())
        growth = np.zeros(wider.shape)
        for width in np.unique(wider[wider > widest]):
            now, then = (
                _whole_bytes(self.storage.stored_bits(self.specs[name], np.array(bits)))
                for bits in (widest, width)
            )
            growth[wider == width] = then - now
        return growth


def _copies(model: ir.Model) -> dict[str, int]:
    """Tensors that may be written of each bias: one for each accumulator, one for all others.

    Accumulators of equal steps share one, and so do float kernels; but that depends on what is
    learned, and a bound must hold whatever that is.
    """
    copies = {}
    for name, (node, spec) in quantizer_nodes(model).items():
        if spec.role is Role.BIAS:
            readers = [use.node.op_type == ACCUMULATOR_OP for use in node.outputs[0].uses()]
            copies[name] = sum(readers) + (not all(readers))
    return copies


def _whole_bytes(bits: int) -> int:
    return -(-bits // 8)
