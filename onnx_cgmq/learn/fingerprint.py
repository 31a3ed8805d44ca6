"""Says which run a checkpoint belongs to, part by part, so that a refusal can name what differs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq import __version__
from onnx_cgmq.data.samples import Indices, Samples, Store
from onnx_cgmq.graph.files.external import reading
from onnx_cgmq.learn.function_digest import function_digest
from onnx_cgmq.learn.loss_function import OwnLoss, is_own
from onnx_cgmq.settings.config import Config

Fingerprint = dict[str, str]
"""Text or a digest for each part of a run, by the name of the part for messages."""

_MOST_BYTES = 1 << 30
"""Of more data than this, the first samples stand for all; their number counts in any case."""

_ROWS = 256  # samples that are read at a time


def fingerprint(
    config: Config, bound: str, train: Samples, held_out: Samples, model: ir.Model
) -> Fingerprint:
    """Returns what identifies a run, so that a checkpoint of another run is refused.

    It does not depend on the time limit, the device and on ``compact``, which may change when a run
    goes on.

    Args:
        config: The settings of the run.
        bound: The bounds as text.
        train: The training samples. The first GiB of them and all labels are read.
        held_out: The held-out samples, likewise.
        model: The float model.
    """
    settings = config.model_dump(mode="json", exclude={"time_limit", "device", "compact", "loss"})
    own = OwnLoss.of(config.loss).function if is_own(config.loss) else None
    parts = {
        "version of onnx-cgmq": __version__,
        "bound": bound,
        "graph": _graph(model),
        "weights": _weights(model),
        **_store(train.store, train.outputs),
        "choice of training samples": _of_arrays([train.indices]),
        **{name: json.dumps(value, sort_keys=True) for name, value in settings.items()},
        "loss": str(config.loss) if own is None else function_digest(own),
    }
    if held_out.store is not train.store:
        given = _store(held_out.store, held_out.outputs)
        parts["held-out data"] = json.dumps([given, _of_arrays([held_out.indices])])
    return parts


def differences(one: Fingerprint, other: Fingerprint) -> list[str]:
    """Returns the names of the parts that differ."""
    return [name for name in {**one, **other} if one.get(name) != other.get(name)]


def _graph(model: ir.Model) -> str:
    """A digest of operators, attributes and connections; not of docs, metadata and types inside."""
    digest = hashlib.blake2b()
    digest.update(repr(sorted(model.opset_imports.items())).encode())
    _add_graph(digest, model.graph)
    for function in model.functions.values():
        _add_graph(digest, function)
    return digest.hexdigest()


def _add_graph(digest: hashlib.blake2b, graph: ir.Graph | ir.Function) -> None:
    for value in (*graph.inputs, *graph.outputs):
        digest.update(repr((value.name, str(value.dtype), str(value.shape))).encode())
    for node in graph:
        read = [None if value is None else value.name for value in node.inputs]
        made = [value.name for value in node.outputs]
        digest.update(repr((node.op_identifier(), read, made)).encode())
        for name, attribute in sorted(node.attributes.items()):
            if attribute.type is ir.AttributeType.GRAPH and not attribute.is_ref():
                digest.update(name.encode())
                _add_graph(digest, attribute.as_graph())
            else:
                proto = ir.serde.serialize_attribute(attribute)
                digest.update(proto.SerializeToString(deterministic=True))


def _weights(model: ir.Model) -> str:
    digest = hashlib.blake2b()
    for graph in model.graphs():
        for name, value in sorted(graph.initializers.items()):
            if value.const_value is None:
                continue
            with reading(value.const_value) as array:
                digest.update(f"{name} {value.const_value.dtype} {array.shape} ".encode())
                _add_array(digest, array)
    return digest.hexdigest()


def _store(store: Store, outputs: tuple[str, ...]) -> Fingerprint:
    digests = {"training data": hashlib.blake2b(), "target values": hashlib.blake2b()}
    size = 0
    for start in range(0, len(store), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(store)))
        for name, array in _arrays(store, rows):
            digest = digests["target values" if name in outputs else "training data"]
            digest.update(f"{name} {array.dtype} {array.shape} ".encode())
            _add_array(digest, array)
            size += array.nbytes
        if size > _MOST_BYTES:
            break
    return {
        "number of samples": str(len(store)),
        "labels": "none" if store.labels is None else _of_arrays([store.labels]),
        **{name: digest.hexdigest() for name, digest in digests.items()},
    }


def _arrays(store: Store, rows: Indices) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Reads neighbouring samples; only those of one form can be read together."""
    forms = store.forms
    runs = [rows] if forms is None else np.split(rows, np.flatnonzero(np.diff(forms[rows])) + 1)
    for alike in runs:
        yield from sorted(store.read(alike).items())


def _of_arrays(arrays: Iterable[npt.NDArray[Any]]) -> str:
    digest = hashlib.blake2b()
    for array in arrays:
        _add_array(digest, array)
    return digest.hexdigest()


def _add_array(digest: hashlib.blake2b, array: npt.NDArray[Any]) -> None:
    if array.dtype.kind == "O":  # strings
        digest.update(repr(array.tolist()).encode())
    else:
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
