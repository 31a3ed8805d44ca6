"""Which version of the standard operators a model is brought to, and how."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import get_all_opkernel_def
from onnxscript.version_converter import ConvertVersionPass

from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.opspec import standard_op
from onnx_cgmq.graph.runtimes import RUNTIME_KEY, Runtime

OLDEST_OPSET: Final = 21
"""The gated functions need its 4- and 16-bit types."""

NEWEST_OPSET: Final = 25
"""The newest that the version converter reaches."""

_OPEN_END: Final = 2**31 - 1  # a kernel without a last version


def convert(model: ir.Model) -> None:
    """Brings a model to the target opset, in place; a newer one stays if it can be run.

    Args:
        model: A model of at least opset 18, without functions to inline.

    Raises:
        ModelError: The installed onnxruntime, or the oldest one that the model is for, doesn't load
            the opset, or the converter fails.
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
    if current > target and not _loads(current):
        raise ModelError(
            f"the model uses opset {current}, which onnxruntime {ort.__version__} does not load; "
            f"upgrade onnxruntime or export the model with opset {target}"
        )
    raise_opset(model, target)


def raise_opset(model: ir.Model, target: int) -> None:
    """Brings a model to an opset, in place, with an IR version to it; a newer one stays.

    Args:
        model: As for :func:`convert`.
        target: At most :data:`NEWEST_OPSET`.

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
        except Exception as error:  # the converter raises whatever it meets
            while error.__cause__ is not None and isinstance(error.__cause__, Exception):
                error = error.__cause__
            raise ModelError(
                f"the model can't be upgraded from opset {current} to {target}: "
                f"{' '.join(str(error).split())[:500]}; export it with opset {target}"
            ) from error
    model.ir_version = max(model.ir_version or 0, _ir_version(model.opset_imports[""]))


def target_opset(op_types: Iterable[str], runtime: Runtime | None = None) -> int:
    """The newest opset, up to 25, in which onnxruntime has kernels for operators.

    Args:
        op_types: The operators.
        runtime: The oldest onnxruntime to serve; by default the installed one.

    Raises:
        ModelError: The installed onnxruntime loads none that has the types needed.
    """
    runtime = runtime or Runtime.installed()
    newest = min(newest_opset(), runtime.opset)
    opsets = range(newest, OLDEST_OPSET - 1, -1)

    def limit(op: str) -> int:
        runs = (v for v in opsets if _has_kernel(op, v) and runtime.has_kernel(op, v))
        return next(runs, newest)

    return min(map(limit, set(op_types)), default=newest)


@lru_cache(maxsize=1)
def newest_opset() -> int:
    """The newest opset, up to 25, that the installed onnxruntime loads.

    Raises:
        ModelError: It loads none that has the types needed.
    """
    for opset in range(NEWEST_OPSET, OLDEST_OPSET - 1, -1):
        if _loads(opset):
            return opset
    raise ModelError(
        f"onnxruntime {ort.__version__} does not load opset {OLDEST_OPSET}; upgrade onnxruntime"
    )


def _has_kernel(op_type: str, opset: int) -> bool:
    """Whether a CPU kernel runs an operator as that opset defines it.

    A kernel without a last version runs the version that it was made for only.
    """
    if not onnx.defs.has(op_type, opset, ""):
        return False
    since = onnx.defs.get_schema(op_type, opset, "").since_version
    return any(
        first == since or (first <= since <= last != _OPEN_END)
        for first, last in _kernels().get(op_type, ())
    )


@lru_cache(maxsize=1)
def _kernels() -> dict[str, set[tuple[int, int]]]:
    """First and last versions of the CPU kernels of the standard operators."""
    found: dict[str, set[tuple[int, int]]] = {}
    for kernel in get_all_opkernel_def():
        if kernel.domain == "" and kernel.provider == "CPUExecutionProvider":
            found.setdefault(kernel.op_name, set()).add(tuple(kernel.version_range))
    return found


def _refuse_unknown_groups(model: ir.Model, opset: int) -> None:
    """GroupNormalization has factors per channel since opset 21, per group before.

    The converter needs to know their number, and silently keeps the node where it doesn't.
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
                f"node '{node.name}' (GroupNormalization, opset {opset}): its number of channels "
                "is unknown; export the model with opset 21 or newer"
            )


def _loads(opset: int) -> bool:
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "probe", [x], [y])
    imports = [onnx.helper.make_opsetid("", opset)]
    model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=_ir_version(opset))
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    except Exception:  # onnxruntime has no common base for its load errors
        return False
    return True


def _ir_version(opset: int) -> int:
    imports = [onnx.helper.make_opsetid("", opset)]
    return int(onnx.helper.find_min_ir_version_for(imports, ignore_unknown=True))
