"""What onnxruntime really runs: read off the graph that it makes of a model when it loads it."""

from __future__ import annotations

import os
import re
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Final

import onnx
import onnx_ir as ir

from onnx_cgmq.errors import ModelError, one_line
from onnx_cgmq.graph.files.load import ModelLike
from onnx_cgmq.graph.files.protos import all_nodes
from onnx_cgmq.graph.operators import computes_on_codes
from onnx_cgmq.ort.session import LogLevel, new_session
from onnx_cgmq.ort.versions import Runtime

_TAG: Final = "#{}#"
_TAGGED: Final = re.compile(r"#(\d+)#")
_LARGE: Final = 1024
"""Bytes from which on a weight of the optimized graph is not kept."""

_FUSED_BEHIND: Final = ("Add", "Clip", "HardSigmoid", "LeakyRelu", "Relu", "Sigmoid", "Tanh")
_MULTIPLIES: Final = re.compile("Attention|Conv|Einsum|GRU|Gemm|LSTM|MatMul|RNN")


def executed_operators(model: ModelLike) -> dict[str, str]:
    """Operators that onnxruntime runs for the nodes of a model, on its CPU provider.

    Fused nodes have names made of that of the node they replace. So every node gets a name of its
    own, in a copy, and is looked for in the optimized graph by it, or else by its output (or that
    of an activation function behind it). External data is read where it lies.

    Args:
        model: Path, ``onnx.ModelProto`` or ``onnx_ir.Model``.

    Returns:
        By name of a node's first output, the operator of the node that runs it. What is not there
        was folded, or fused in a way that hides it.

    Raises:
        ModelError: onnxruntime can't load the model.
    """
    try:
        proto, folder = _with_folder(model)
        return _executed(proto, folder)
    except Exception as error:  # onnxruntime's errors, protobuf's above 2 GiB, a full disk
        version = Runtime.installed().version
        raise ModelError(
            f"onnxruntime {version} can't load the model: {one_line(error)}"
        ) from error


def _executed(proto: onnx.ModelProto, folder: Path | None) -> dict[str, str]:
    keys: list[str] = []
    for node in all_nodes(proto.graph):
        node.name = _TAG.format(len(keys))
        keys.append(next(filter(None, node.output), ""))
    found: defaultdict[str, list[str]] = defaultdict(list)
    made: dict[str, str] = {}
    for node in all_nodes(_optimized(proto, folder).graph):
        if _MULTIPLIES.search(node.op_type):
            # The layout transformer for float convolutions names nodes after their outputs.
            outputs = (*node.output, node.name.removesuffix("_nchwc"))
            made.update(dict.fromkeys(outputs, node.op_type))
        for tag in _TAGGED.findall(node.name):
            found[keys[int(tag)]].append(node.op_type)
    executed = {key: min(operators, key=_rank) for key, operators in found.items()}
    behind = _fusible_readers(proto.graph)
    for key in keys:
        end: str | None = key
        while end is not None and end not in made:
            end = behind.get(end)
        if key not in executed and end is not None:
            executed[key] = made[end]
    executed.pop("", None)
    return executed


def _fusible_readers(graph: onnx.GraphProto) -> dict[str, str]:
    """Output of the one node that reads a value, where that may be fused into what makes it."""
    readers: defaultdict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in all_nodes(graph):
        for value in node.input:
            readers[value].append(node)
    return {
        value: nodes[0].output[0]
        for value, nodes in readers.items()
        if len(nodes) == 1 and nodes[0].op_type in _FUSED_BEHIND
    }


def _rank(op_type: str) -> int:
    """Of several nodes that come from one, the smallest tells most."""
    return 0 if computes_on_codes(op_type) else 1 if _MULTIPLIES.search(op_type) else 2


def _with_folder(model: ModelLike) -> tuple[onnx.ModelProto, Path | None]:
    """A proto that may be changed, and where its external data is."""
    if isinstance(model, (str, os.PathLike)):
        path = Path(model)
        return onnx.load(path, load_external_data=False), path.resolve().parent
    if isinstance(model, onnx.ModelProto):
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        return copy, None
    copied = model.clone()
    ir.external_data.load_to_model(copied)
    return ir.serde.serialize_model(copied), None


def _optimized(proto: onnx.ModelProto, folder: Path | None) -> onnx.ModelProto:
    entries = {}
    if folder is not None:
        entries["session.model_external_initializers_file_folder_path"] = f"{folder}{os.sep}"
    # Weights go to a file that is not kept.
    prefix = "session.optimized_model_external_initializers_"
    entries[f"{prefix}file_name"] = "weights"
    entries[f"{prefix}min_size_in_bytes"] = str(_LARGE)
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "optimized.onnx"
        new_session(
            proto.SerializeToString(),
            log_level=LogLevel.SILENT,
            optimized_model=target,
            entries=entries,
        )
        return onnx.load(target, load_external_data=False)
