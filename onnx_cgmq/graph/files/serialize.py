"""Writes a model tensor by tensor, so that its bytes are never in memory a second time.

protobuf's own serializer holds the weights two more times: in the message, and in the bytes made of
it. In a file, a message is a sequence of fields, each of which is ``tag, length, content``.
Initializers are fields of the graph, so they can be written one by one after its other fields.
"""

from __future__ import annotations

from typing import BinaryIO, Final

import onnx
import onnx_ir as ir

_RAW_ABOVE: Final = 1 << 12  # bytes: protobuf itself serializes smaller tensors

_GRAPH: Final = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_INITIALIZER: Final = onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
_RAW_DATA: Final = onnx.TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number
_LENGTH_DELIMITED: Final = 2  # the wire type that protobuf gives to messages and bytes


def write_model(model: ir.Model, file: BinaryIO) -> None:
    """Writes a model as one protobuf file.

    Args:
        model: The model. All its initializers become part of the file, even those with external
            data. The model loses them.
        file: A file that is open for writing, at its start.

    Raises:
        OSError: The file can't be written, or external data can't be read.
    """
    initializers = [
        _Initializer(name, value.const_value)
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    ]
    model.graph.initializers.clear()
    ir.external_data.load_to_model(model)  # what is left are initializers of subgraphs
    proto = ir.serde.serialize_model(model)
    graph = proto.graph.SerializeToString()
    proto.ClearField("graph")
    size = len(graph) + sum(initializer.size for initializer in initializers)
    file.write(proto.SerializeToString())
    file.write(_prefix(_GRAPH, size))
    file.write(graph)
    for initializer in initializers:
        initializer.write(file)


class _Initializer:
    """An initializer as a field of the graph's message.

    Attributes:
        size: Bytes of the field, with tag and length.
    """

    def __init__(self, name: str, tensor: ir.TensorProtocol) -> None:
        self._tensor = tensor
        self._raw = tensor.dtype is not ir.DataType.STRING and tensor.nbytes > _RAW_ABOVE
        if self._raw:
            dims = tensor.shape.numpy()
            header = onnx.TensorProto(name=name, data_type=int(tensor.dtype), dims=dims)
            self._head = header.SerializeToString() + _prefix(_RAW_DATA, tensor.nbytes)
            content = len(self._head) + tensor.nbytes
        else:
            self._head = _tensor_proto(name, tensor).SerializeToString()
            content = len(self._head)
        self._prefix = _prefix(_INITIALIZER, content)
        self.size = len(self._prefix) + content

    def write(self, file: BinaryIO) -> None:
        """Writes the field to a file."""
        file.write(self._prefix)
        file.write(self._head)
        if self._raw:
            self._tensor.tofile(file)  # type: ignore[attr-defined]


def _tensor_proto(name: str, tensor: ir.TensorProtocol) -> onnx.TensorProto:
    if isinstance(tensor, ir.ExternalTensor):
        tensor = ir.tensor(tensor.numpy(), tensor.dtype)
    proto = ir.serde.serialize_tensor(tensor)
    proto.name = name
    return proto


def _prefix(field: int, size: int) -> bytes:
    """Returns tag and length of a field, whose content has ``size`` bytes."""
    return _varint(field << 3 | _LENGTH_DELIMITED) + _varint(size)


def _varint(number: int) -> bytes:
    """Encodes a number as protobuf does: seven bits in each byte, the lowest first.

    The eighth bit says that more bytes follow.
    """
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)
