"""Chooses the opset of a prepared model, and converts the model to it."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir
from onnxscript.version_converter import ConvertVersionPass

from onnx_cgmq.contract.identifiers import RUNTIME_KEY
from onnx_cgmq.errors import ModelError, one_line
from onnx_cgmq.graph.nodes import called, standard_op
from onnx_cgmq.ort.capabilities import (
    OLDEST_OPSET,
    has_kernel,
    ir_version_of,
    loads_opset,
    newest_opset,
)
from onnx_cgmq.ort.versions import Runtime


def convert(model: ir.Model) -> None:
    """Converts a model to :func:`target_opset`, in place.

    A newer opset stays as it is if onnxruntime runs it.

    Args:
        model: A model of at least opset 18, without functions to inline.

    Raises:
        ModelError: The installed onnxruntime, or the oldest one that the model is for, does not
            load the opset, or the converter fails.
    """
    current = model.opset_imports.setdefault("", newest_opset())
    runtime = Runtime.of(model)
    operators = [op for graph in model.graphs() for op in map(standard_op, graph) if op]
    target = target_opset(operators, runtime)
    if current > runtime.opset and RUNTIME_KEY in model.metadata_props:
        raise ModelError(
            f"the model uses opset {current}; onnxruntime {runtime.version} runs quantized models "
            f"up to opset {runtime.opset}: export the model with that, or serve newer versions only"
        )
    if current > target and not loads_opset(current):
        raise ModelError(
            f"the model uses opset {current}, which onnxruntime {Runtime.installed().version} does "
            f"not load; upgrade onnxruntime or export the model with opset {target}"
        )
    raise_opset(model, target)


def raise_opset(model: ir.Model, target: int) -> None:
    """Raises a model to an opset and to an IR version that has it, in place.

    A newer opset stays as it is.

    Args:
        model: A model of at least opset 18, without functions to inline.
        target: The opset, at most :data:`~onnx_cgmq.ort.capabilities.NEWEST_OPSET`.

    Raises:
        ModelError: The converter fails.
    """
    current = model.opset_imports[""]
    if current < target:
        try:
            _refuse_unknown_groups(model, current)
            ConvertVersionPass(target)(model)
        except ModelError:
            raise
        except Exception as error:  # the converter raises many kinds of errors
            raise ModelError(
                f"the model can't be upgraded from opset {current} to {target}: "
                f"{one_line(error)}; export it with opset {target}"
            ) from error
    model.ir_version = max(model.ir_version or 0, ir_version_of(model.opset_imports[""]))


def target_opset(op_types: Iterable[str], runtime: Runtime | None = None) -> int:
    """Returns the newest opset, up to 25, in which onnxruntime has kernels for all operators.

    An operator without a kernel in any opset does not count.

    Args:
        op_types: The operators.
        runtime: The oldest onnxruntime that is to run the model; by default the installed one.

    Raises:
        ModelError: The installed onnxruntime loads no opset that has the types of a gated model.
    """
    runtime = runtime or Runtime.installed()
    newest = min(newest_opset(), runtime.opset)
    opsets = range(newest, OLDEST_OPSET - 1, -1)

    def limit(op: str) -> int:
        runs = (v for v in opsets if has_kernel(op, v) and runtime.has_kernel(op, v))
        return next(runs, newest)

    return min(map(limit, set(op_types)), default=newest)


def _refuse_unknown_groups(model: ir.Model, opset: int) -> None:
    """Refuses a GroupNormalization with an unknown number of channels, if it has to be converted.

    It has a factor for each group before opset 21, and one for each channel since. The converter
    has to know how many channels there are. Where it doesn't, it silently leaves the node as it is.
    """
    for node in (node for graph in model.graphs() for node in graph):
        if standard_op(node) != "GroupNormalization" or opset >= 21:
            continue
        channels = [
            value.shape[axis] if value is not None and value.shape is not None else None
            for value, axis in zip(node.inputs, (1, 0, 0), strict=True)
        ]
        if not all(isinstance(size, int) for size in channels):
            raise ModelError(
                f"{called(node)} (opset {opset}): its number of channels is unknown; export the "
                "model with opset 21 or newer"
            )
