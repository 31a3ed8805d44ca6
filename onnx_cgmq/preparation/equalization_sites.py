"""Finds where factors of channels can move: from constants to all weights that multiply them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_cgmq.graph.affine import Constant
from onnx_cgmq.graph.channels import Channels, channels_behind
from onnx_cgmq.graph.constant_macs import ConstantMac
from onnx_cgmq.graph.emitter import optional, rank_of
from onnx_cgmq.graph.nodes import called, int_attribute, standard_op
from onnx_cgmq.graph.uses import element_uses, has_one_reader

_GELU_DEPTH: Final = 3
"""How many nodes before the last Mul of a GELU its Erf or Tanh may be found."""

_NORMS: Final = ("BatchNormalization", "InstanceNormalization", "LayerNormalization")
"""Operators with a constant scale and shift for each channel, their inputs 1 and 2."""


@dataclass(frozen=True)
class Vector:
    """A constant input of a node with one element for each entry along the channel axis, or one.

    Attributes:
        node: The node.
        index: Index of the input.
        channels: The channels of the node's result.
    """

    node: ir.Node
    index: int
    channels: Channels

    def divided(self, factors: Constant) -> Constant:
        """The constant divided by a factor for each channel; of one number it makes a vector."""
        value = self.node.inputs[self.index]
        assert value is not None
        assert value.const_value is not None
        array, divisors = value.const_value.numpy(), np.repeat(factors, self.channels.repeat)
        if array.size > 1:
            return np.asarray(array / divisors.reshape(array.shape))
        rank = rank_of(self.node.outputs[0])
        assert rank is not None
        behind = rank - self.channels.axis - 1
        return np.asarray(array.reshape(-1) / divisors.reshape(-1, *[1] * behind))


@dataclass(frozen=True)
class Place:
    """A value that has the channels, and where.

    Attributes:
        value: The value.
        channels: Its channels.
    """

    value: ir.Value
    channels: Channels


@dataclass(frozen=True)
class Reading:
    """A MAC node that multiplies the channels by constant weights.

    Attributes:
        mac: The MAC node.
        places: The values on the way to it that get quantizers; the last one is its operand.
    """

    mac: ConstantMac
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Site:
    """A place where a factor for each channel can move.

    Attributes:
        source: The node whose constants decide the scale of each channel.
        mac: The same as a MAC node, if it is one.
        vectors: All constants that are to be divided by the factors, but the weight of ``mac``.
        readings: All that is read of the channels.
    """

    source: ir.Node
    mac: ConstantMac | None
    vectors: tuple[Vector, ...]
    readings: tuple[Reading, ...]


@dataclass(frozen=True)
class NoSite:
    """A node in front of MAC nodes whose channels can't be scaled.

    Attributes:
        source: The node.
        why: Why not, in words that follow "because".
    """

    source: ir.Node
    why: str


def find_site(node: ir.Node) -> Site | NoSite | None:
    """Describes the site of which a node of the main graph is the source.

    Args:
        node: The node.

    Returns:
        The site; or why there is none, although a MAC node reads the channels; or ``None``.
    """
    start = _start(node)
    if start is None:
        return None
    search = _Search(node, list(start.vectors))
    search.follow(Place(node.outputs[0], start.channels), ())
    if not search.readings:
        return None
    constants: list[ir.Value | None] = []
    if start.mac is not None:
        constants = [start.mac.weight, start.mac.bias]
    if not all(value is None or _is_own_float(value) for value in constants):
        return NoSite(node, "its weight or bias is not in float32, or other nodes read it too")
    if search.why:
        return NoSite(node, search.why)
    return Site(node, start.mac, tuple(search.vectors), tuple(search.readings))


@dataclass(frozen=True)
class _Start:
    channels: Channels
    mac: ConstantMac | None
    vectors: tuple[Vector, ...]


def _start(node: ir.Node) -> _Start | None:
    """Describes a node whose constants can scale each channel of its result."""
    rank = rank_of(node.outputs[0])
    if rank is None or node.outputs[0].dtype is not ir.DataType.FLOAT:
        return None
    mac = ConstantMac.of(node)
    if mac is not None:
        return _with_vectors(node, Channels(mac.axis, mac.channels), (2,), mac)
    if standard_op(node) in _NORMS:
        on_last = standard_op(node) == "LayerNormalization"
        if on_last and int_attribute(node, "axis", -1) not in (-1, rank - 1):
            return None
        channels = Channels(rank - 1 if on_last else 1, _size(optional(node, 1)))
        return _with_vectors(node, channels, (1, 2))
    for index in (0, 1) if standard_op(node) == "Mul" else ():
        scaled = _channels_of_factor(node, index)
        if scaled is not None:
            return _Start(scaled, None, (Vector(node, index, scaled),))
    return None


def _channels_of_factor(mul: ir.Node, index: int) -> Channels | None:
    """The channels that a constant operand of a Mul scales, or could scale if it is one number."""
    if not _is_float(mul.inputs[index]):
        return None
    axis, size = _axis_of_vector(mul, index), _size(mul.inputs[index])
    if axis is not None:
        return Channels(axis, size)
    shape = mul.outputs[0].shape
    if size != 1 or shape is None or len(shape) < 2 or _is_in_gelu(mul):
        return None
    axis = 1 if len(shape) > 3 else len(shape) - 1
    count = shape[axis]
    return Channels(axis, count) if isinstance(count, int) and count > 1 else None


def _is_in_gelu(mul: ir.Node) -> bool:
    """Says whether a Mul may end a GELU, which onnxruntime only fuses with its constants as are."""
    nodes = [mul]
    for _ in range(_GELU_DEPTH):
        nodes = [n for node in nodes for value in node.inputs if value and (n := value.producer())]
        if any(standard_op(node) in ("Erf", "Tanh") for node in nodes):
            return True
        nodes = [node for node in nodes if standard_op(node) in ("Add", "Mul")]
    return False


def _with_vectors(
    node: ir.Node, channels: Channels, indices: tuple[int, ...], mac: ConstantMac | None = None
) -> _Start | None:
    """Describes a node; ``None`` if an input at one of the indices is no vector of the channels."""
    given = [(index, optional(node, index)) for index in indices]
    vectors = [Vector(node, index, channels) for index, value in given if value is not None]
    for _, value in given:
        if value is not None and not (
            _is_float(value) and _size(value) == channels.size and _runs_along_last_axis(value)
        ):
            return None
    return _Start(channels, mac, tuple(vectors))


@dataclass
class _Search:
    """Follows channels to all that reads them.

    Attributes:
        source: The node whose channels they are.
        vectors: The constants found that are to be scaled like the channels.
        readings: The MAC nodes found that multiply the channels.
        scaled: All values found that have the channels.
        why: Why the channels can't be scaled; empty as long as they can.
    """

    source: ir.Node
    vectors: list[Vector]
    readings: list[Reading] = field(default_factory=list)
    scaled: set[ir.Value] = field(default_factory=set)
    why: str = ""

    def follow(self, place: Place, quantized: tuple[Place, ...]) -> None:
        """Follows the channels of a value to all nodes that read it.

        Args:
            place: The value.
            quantized: The values on the way to it that get quantizers.
        """
        value = place.value
        self.scaled.add(value)
        if self.why:
            return
        if value.is_graph_output():
            self.why = f"'{value.name}' is an output of the model"
        for node, index in element_uses(value):
            mac = ConstantMac.of(node)
            if node.graph is not self.source.graph:
                self.why = f"a subgraph reads '{value.name}'"
            elif mac is not None and index == 0 and _multiplies(mac, place):
                self.readings.append(Reading(mac, (*quantized, place)))
                if not _is_own_float(mac.weight):
                    self.why = (
                        f"the weight of {called(node)} is not in float32, or other nodes read it "
                        "too"
                    )
            else:
                self._follow_through(node, index, place, quantized)

    def _follow_through(
        self, node: ir.Node, index: int, place: Place, quantized: tuple[Place, ...]
    ) -> None:
        """Follows the channels of an input of a node that is no MAC node to its output."""
        behind = channels_behind(node, place.channels) if index == 0 else None
        if standard_op(node) == "Add" and _is_vector(node, 1 - index, place.channels):
            self.vectors.append(Vector(node, 1 - index, place.channels))
            behind = place.channels
        elif standard_op(node) == "Mul" and self._is_factor(node, 1 - index, place):
            behind = place.channels
        if behind is None:
            self.why = f"{called(node)} reads '{place.value.name}', which it must read as it is"
            return
        # What an integer kernel reads is quantized. Pooling averages such errors away.
        on_codes = standard_op(node) in ("LeakyRelu", "Mul")
        quantized = (*quantized, place) if on_codes else quantized
        self.follow(Place(node.outputs[0], behind), quantized)

    def _is_factor(self, mul: ir.Node, index: int, place: Place) -> bool:
        """Says whether an operand of a Mul only multiplies the channels of the other one."""
        factor, rank = mul.inputs[index], rank_of(place.value)
        if factor is None or factor.const_value is not None or factor in self.scaled:
            return False
        return rank_of(factor) == rank == rank_of(mul.outputs[0])


def _multiplies(mac: ConstantMac, place: Place) -> bool:
    """Says whether a MAC node sums over the channels of its first operand."""
    rank, op = rank_of(place.value), standard_op(mac.node)
    if rank is None or (op == "Gemm" and int_attribute(mac.node, "transA", 0)):
        return False
    axis = 1 if op in ("Conv", "ConvTranspose") else rank - 1
    return place.channels.axis == axis and mac.inputs == place.channels.size


def _is_vector(node: ir.Node, index: int, channels: Channels) -> bool:
    """Says whether an operand is a constant with one element for each channel entry, or one."""
    axis, size = _axis_of_vector(node, index), _size(node.inputs[index])
    fits = size == 1 or (axis == channels.axis and size == channels.size)
    return fits and _is_float(node.inputs[index])


def _axis_of_vector(node: ir.Node, index: int) -> int | None:
    """The axis of the result along which a constant operand varies, if it is one axis."""
    value, rank = node.inputs[index], rank_of(node.outputs[0])
    if value is None or value.const_value is None or rank is None:
        return None
    if rank_of(node.inputs[1 - index]) != rank:
        return None
    sizes = value.const_value.shape.numpy()
    axes = [rank - len(sizes) + axis for axis, size in enumerate(sizes) if size != 1]
    return axes[0] if len(axes) == 1 and len(sizes) <= rank else None


def _runs_along_last_axis(value: ir.Value) -> bool:
    """Says whether all elements of a constant lie along its last axis."""
    assert value.const_value is not None
    return value.const_value.shape.numpy()[-1:] == (value.const_value.size,)


def _size(value: ir.Value | None) -> int:
    """Number of elements of a constant; 0 if the value is not constant."""
    return 0 if value is None or value.const_value is None else value.const_value.size


def _is_float(value: ir.Value | None) -> bool:
    """Says whether a value is a constant in float32."""
    tensor = None if value is None else value.const_value
    return tensor is not None and tensor.dtype is ir.DataType.FLOAT


def _is_own_float(value: ir.Value) -> bool:
    """Says whether a value is a constant in float32 that one node reads."""
    return _is_float(value) and has_one_reader(value)
