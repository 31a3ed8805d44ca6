"""Loads and saves ONNX files: with clear errors for what can't be read, and atomic writes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeAlias

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from onnx_cgmq.contract.replace import regular_file, replaced
from onnx_cgmq.errors import ModelError, one_line
from onnx_cgmq.graph.files.detach import detach, detached
from onnx_cgmq.graph.files.serialize import write_model
from onnx_cgmq.graph.files.tolerance import (
    forget_false_sizes,
    tolerated,
    without_external_data,
)
from onnx_cgmq.graph.files.validate import refuse_maps, validate

ModelLike: TypeAlias = str | os.PathLike[str] | onnx.ModelProto | ir.Model
"""What every function that takes a model accepts: a path, a proto, or a graph in memory."""

_PROTO_LIMIT: Final = 2**31 - 2**24
"""Bytes of tensors above which a model needs external data: a protobuf file must be below 2 GiB,
with its nodes and names."""


def load_model(model: ModelLike) -> ir.Model:
    """Loads a model. Never changes what the caller holds, and shares only large tensors with it.

    Args:
        model: Path of an ONNX file, ``onnx.ModelProto``, or ``onnx_ir.Model``, which is copied and
            not validated.

    Returns:
        The graph in memory. External data stays in its file, which is mapped.

    Raises:
        ModelError: The file is missing, is not ONNX, is truncated or invalid, or its external data
            is missing, too short, or outside the folder of the file.
    """
    if isinstance(model, ir.Model):
        return detached(model)
    if isinstance(model, onnx.ModelProto):
        loaded = _from_proto(model, "the ModelProto", Path.cwd())
        detach(loaded)
        return loaded
    path = Path(model)
    if os.path.isdir(path):
        raise ModelError(f"{path} is a folder; give the ONNX file in it")
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"{path} does not exist; check the path of the ONNX file") from error
    except (OSError, ValueError) as error:  # the latter for a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise ModelError(f"{path} can't be read: {reason}") from error
    try:
        proto = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise ModelError(
            f"{path} is not an ONNX file, or is truncated ({len(content):,} bytes; {error}); "
            "export or download it again"
        ) from error
    return _from_proto(proto, str(path), path.resolve().parent)


def save_model(model: ir.Model, path: str | os.PathLike[str]) -> None:
    """Writes a model atomically: a file of that name is replaced at the end or left as it was.

    If the path is a link, the file that it leads to is written, and the link stays. If a model is
    too large for one file (2 GiB), its tensors go to ``NAME.data`` beside it.

    Args:
        model: The model to write; it is not changed.
        path: The file to write.

    Raises:
        OutputError: The file can't be written.
        ModelError: External data that the model refers to can no longer be read.
    """
    try:
        with replaced(path) as part:
            _write(model, regular_file(path), part)
    except ir.serde.SerdeError as error:
        raise ModelError(
            f"the model can't be written to {path}: {one_line(error)}; check that the files with "
            "its external data are still there"
        ) from error


def external_data_path(path: Path) -> Path:
    """Returns the file for the tensors of a model that is too large for one file."""
    return path.with_name(f"{path.name}.data")


def tensors_of(model: ir.Model) -> Iterator[tuple[str, ir.TensorProtocol]]:
    """Yields names and values of all constant tensors: initializers and attributes of nodes.

    Those of subgraphs are included.
    """
    for graph in model.graphs():
        for name, value in graph.initializers.items():
            if value.const_value is not None:
                yield name, value.const_value
        for node in graph:
            for attribute in node.attributes.values():
                if attribute.type is ir.AttributeType.TENSOR and not attribute.is_ref():
                    yield f"{node.name or node.op_type}.{attribute.name}", attribute.as_tensor()


def external_files(model: ir.Model) -> set[Path]:
    """Returns the files that hold the external data of a model."""
    return {
        Path(tensor.path)
        for _, tensor in tensors_of(model)
        if isinstance(tensor, ir.ExternalTensor)
    }


def file_size(path: str | os.PathLike[str]) -> int:
    """Returns the bytes of a model's file, with those of the files of its external data.

    Raises:
        ModelError: The model can't be read.
    """
    external = external_files(load_model(path))
    return Path(path).stat().st_size + sum(data.stat().st_size for data in external)


def _from_proto(proto: onnx.ModelProto, label: str, folder: Path) -> ir.Model:
    if not proto.HasField("graph") or not proto.ir_version:
        raise ModelError(f"{label} is not an ONNX model: it has no graph; export it again")
    refuse_maps(proto, label)
    try:
        model = ir.serde.deserialize_model(proto)
    except Exception as error:  # the kind depends on the malformed field that it meets first
        raise ModelError(
            f"{label} is not a valid ONNX model: {one_line(error)}; export it again"
        ) from error
    validate(model, label)
    external = {
        name: tensor for name, tensor in tensors_of(model) if isinstance(tensor, ir.ExternalTensor)
    }
    for name, tensor in external.items():
        _check_external(label, folder, name, tensor)
    for graph in model.graphs():
        ir.external_data.set_base_dir(graph, folder)
    try:
        # Functions may have another opset than the model, because prepare() upgrades them.
        if proto.ByteSize() < _PROTO_LIMIT:
            checked = without_external_data(proto) if external else proto
            with tolerated(checked):
                onnx.checker.check_model(checked, skip_opset_compatibility_check=True)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise ModelError(
            f"{label} is not a valid ONNX model: {one_line(error)}; export it again"
        ) from error
    forget_false_sizes(model)
    return model


def _check_external(label: str, folder: Path, name: str, tensor: ir.ExternalTensor) -> None:
    where = f"{label}: external data of tensor '{name}'"
    data = (folder / tensor.location).resolve()
    # Links are followed before the check: a model from a stranger must not be able to make us
    # read files that lie elsewhere.
    if not data.is_relative_to(folder.resolve()):
        raise ModelError(
            f"{where} points outside the model's folder ('{tensor.location}'); "
            "move the data file beside the model and export again"
        )
    if not os.path.isfile(data):  # false too where no file can have the name
        raise ModelError(
            f"{where} is missing: no file '{tensor.location}' in {folder}; copy it there"
            + (", or give the path of the model's file" if label == "the ModelProto" else "")
        )
    start, length = tensor.offset or 0, tensor.length or tensor.nbytes
    if start < 0 or length != tensor.nbytes:
        raise ModelError(
            f"{where} has {length:,} bytes from {start:,} on, but {tensor.nbytes:,} are needed for "
            f"its type {tensor.dtype.name} and shape {tensor.shape}; export it again"
        )
    if data.stat().st_nlink > 1:
        raise ModelError(
            f"{where}: '{tensor.location}' is a hard link, perhaps to a file from elsewhere; "
            "replace it by a copy"
        )
    end = start + length
    if data.stat().st_size < end:
        raise ModelError(
            f"{where} is truncated: '{tensor.location}' has {data.stat().st_size:,} bytes, "
            f"{end:,} are needed; copy it again"
        )


def _write(model: ir.Model, target: Path, part: Path) -> None:
    tensors = dict(tensors_of(model))
    for name, tensor in tensors.items():
        if isinstance(tensor, ir.ExternalTensor):
            _check_external("the model", Path(tensor.base_dir), name, tensor)
    if sum(tensor.nbytes for tensor in tensors.values()) < _PROTO_LIMIT:
        with part.open("wb") as file:
            write_model(detached(model), file)
    else:
        # The data file gets its final name at once, since the model stores that name. ir.save
        # replaces it atomically too.
        data = external_data_path(target).name
        ir.save(detached(model), part, format="protobuf", external_data=data)
