"""Finds out what onnxruntime runs, from the optimized graph that it makes when it loads a model."""

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
"""Bytes from which a weight of the optimized graph goes to a file of its own, which is not read."""

_FUSED_BEHIND: Final = ("Add", "Clip", "HardSigmoid", "LeakyRelu", "Relu", "Sigmoid", "Tanh")
_MULTIPLIES: Final = re.compile("Attention|Conv|Einsum|GRU|Gemm|LSTM|MatMul|RNN")


def executed_operators(model: ModelLike) -> dict[str, str]:
    """Returns the operators that onnxruntime's CPU provider runs for the nodes of a model.

    onnxruntime makes the name of a fused node of the name of a node that it replaces. So each node
    of a copy gets a name of its own, which is then looked for in the optimized graph. A node that
    is not found by its name is looked for by its output, or by that of an activation function that
    follows it. External data is read from its own file.

    Args:
        model: Path, ``onnx.ModelProto`` or ``onnx_ir.Model``.

    Returns:
        For the name of a node's first output, the operator of the node that computes it. An output
        is missing if its node was folded, or fused in a way that hides it.

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
    """Does the work of :func:`executed_operators` on a proto that it may change."""
    keys: list[str] = []
    for node in all_nodes(proto.graph):
        node.name = _TAG.format(len(keys))
        keys.append(next(filter(None, node.output), ""))
    found: defaultdict[str, list[str]] = defaultdict(list)
    made: dict[str, str] = {}
    for node in all_nodes(_optimized(proto, folder).graph):
        if _MULTIPLIES.search(node.op_type):
            # onnxruntime names the float convolutions whose layout it changes after their outputs.
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
    """Returns, by value, the output of the node that may be fused into the value's producer.

    That node must be the only one that reads the value.
    """
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
    """Ranks the operators that run for one node; the smallest rank says most about it.

    Rank 0 computes on codes, rank 1 multiplies floats, rank 2 does anything else.
    """
    return 0 if computes_on_codes(op_type) else 1 if _MULTIPLIES.search(op_type) else 2


def _with_folder(model: ModelLike) -> tuple[onnx.ModelProto, Path | None]:
    """Returns a copy of the model's proto, and the folder of its external data, if it has any."""
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
    """Returns the graph that onnxruntime makes of a model, without the values of large weights."""
    entries = {}
    if folder is not None:
        entries["session.model_external_initializers_file_folder_path"] = f"{folder}{os.sep}"
    # Large weights go to a file of their own, which is deleted without being read.
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
