"""Writes a model tensor by tensor, so that its bytes are never in memory a second time.

protobuf's own serializer needs the weights twice more: in the message, and in its bytes. In a file,
a message is a sequence of fields, each ``tag, length, content``; initializers are fields of the
graph, so they can follow its other fields one after the other.
"""

from __future__ import annotations

from typing import BinaryIO, Final

import onnx
import onnx_ir as ir

_RAW_ABOVE: Final = 1 << 12  # bytes: smaller tensors are left to protobuf as a whole

_GRAPH: Final = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_INITIALIZER: Final = onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
_RAW_DATA: Final = onnx.TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number
_LENGTH_DELIMITED: Final = 2  # protobuf's wire type of messages and bytes


def write_model(model: ir.Model, file: BinaryIO) -> None:
    """Writes a model as one protobuf file.

    Args:
        model: Its initializers become part of the file, those with external data too. It is left
            without them.
        file: Open for writing, at its start.

    Raises:
        OSError: The file can't be written, or external data not be read.
    """
    initializers = [
        _Initializer(name, value.const_value)
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    ]
    model.graph.initializers.clear()
    ir.external_data.load_to_model(model)  # those of subgraphs
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
    """One tensor as a field of the graph.

    Attributes:
        size: Bytes of the whole field.
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
            self._head = _small(name, tensor).SerializeToString()
            content = len(self._head)
        self._prefix = _prefix(_INITIALIZER, content)
        self.size = len(self._prefix) + content

    def write(self, file: BinaryIO) -> None:
        """Writes the field."""
        file.write(self._prefix)
        file.write(self._head)
        if self._raw:
            self._tensor.tofile(file)  # type: ignore[attr-defined]


def _small(name: str, tensor: ir.TensorProtocol) -> onnx.TensorProto:
    if isinstance(tensor, ir.ExternalTensor):
        tensor = ir.tensor(tensor.numpy(), tensor.dtype)
    proto = ir.serde.serialize_tensor(tensor)
    proto.name = name
    return proto


def _prefix(field: int, size: int) -> bytes:
    """Tag and length of a field."""
    return _varint(field << 3 | _LENGTH_DELIMITED) + _varint(size)


def _varint(number: int) -> bytes:
    """Seven bits at a time, the lowest first; the eighth says that more follow."""
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)
