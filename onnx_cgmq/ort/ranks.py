"""Shapes that inference can't tell, from runs of the model in onnxruntime."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from threading import Timer
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common

from onnx_cgmq.graph.infer import infer_shapes
from onnx_cgmq.graph.input_shapes import dimension_name, graph_inputs, open_inputs
from onnx_cgmq.graph.nodes import standard_op
from onnx_cgmq.graph.operators import quantized_spec
from onnx_cgmq.ort.session import LogLevel, new_session
from onnx_cgmq.ort.sizes import Sizes

if TYPE_CHECKING:
    from onnx_cgmq.ort.session import Session

Arrays = Mapping[str, npt.NDArray[Any]]

_SECONDS: Final = 60.0
"""How long a run may take: a damaged file may have a loop that does not end. Our choice."""


def open_ranks(model: ir.Model) -> tuple[ir.Value, ...]:
    """Operands of unknown rank of the nodes that multiply or look up, and what loops start from.

    Inference gives none behind ``Loop`` and ``If`` without declared shapes, and behind operators of
    other domains, such as the Scaler of scikit-learn.
    """
    found: dict[ir.Value, None] = {}
    for node in model.graph:
        spec = quantized_spec(node)
        reads = [value for _, value in spec.operand_values(node)] if spec is not None else []
        if standard_op(node) == "Loop":
            reads += [value for value in node.inputs[2:] if value is not None]
        for value in reads:
            if value.shape is None and value.producer() is not None:
                found[value] = None
    return tuple(found)


def set_ranks(model: ir.Model, samples: Sequence[Arrays] = ()) -> None:
    """Gives the operands of unknown rank the shape that they have, in place.

    A size is set if it is the same in two runs on different data, one with a batch twice as large;
    one that grows with the batch gets its name; any other stays open. Nothing changes if all ranks
    are known, or if onnxruntime can't run the model.

    Args:
        model: The model.
        samples: One or two samples, each with a batch axis, by input name; numbers made up if not
            given.
    """
    while values := open_ranks(model):
        one, other = _feeds(model, samples)
        first = _run(model, values, one)
        if not first:
            return
        second = _run(model, values, other)
        batch = _batch_name(model)
        sure = not open_inputs(model)  # else sizes follow from those of this sample
        for value, array in first.items():
            value.shape = ir.Shape(_sizes(array.shape, second.get(value), batch, sure))
            value.type = value.type or ir.TensorType(ir.DataType.from_numpy(array.dtype))
        _enter_loops(model)
        infer_shapes(model)
        if open_ranks(model) == values:  # what onnxruntime gives is no array
            return


def _sizes(
    shape: tuple[int, ...], other: npt.NDArray[Any] | None, batch: str | None, sure: bool
) -> list[int | str | None]:
    if other is None or other.ndim != len(shape):
        return [None] * len(shape)
    sizes: list[int | str | None] = []
    for size, double in zip(shape, other.shape, strict=True):
        if size == double:
            sizes.append(size if sure else None)
        else:
            sizes.append(batch if double == 2 * size == 2 else None)
    return sizes


def _enter_loops(model: ir.Model) -> None:
    """Gives what a loop carries the rank of what it starts from."""
    for node in model.graph.all_nodes():
        if standard_op(node) != "Loop":
            continue
        body = node.attributes["body"].as_graph()
        for outer, inner in zip(node.inputs[2:], body.inputs[2:], strict=False):
            if outer is not None and outer.shape is not None and inner.shape is None:
                inner.shape = ir.Shape([None] * len(outer.shape))
                inner.type = inner.type or outer.type


def _run(
    model: ir.Model, values: Iterable[ir.Value], inputs: Arrays
) -> dict[ir.Value, npt.NDArray[Any]]:
    """Values of one run; empty if onnxruntime can't run the model."""
    probe, wanted = model.clone(), {str(value.name): value for value in values}
    made = {str(value.name): value for node in probe.graph for value in node.outputs}
    probe.graph.outputs.clear()
    probe.graph.outputs.extend(made[name] for name in wanted)
    common.RemoveUnusedNodesPass()(probe)  # what comes behind may fail on numbers that are made up
    try:
        ir.external_data.load_to_model(probe)
        content = ir.serde.serialize_model(probe).SerializeToString()
        session = new_session(content, optimize=False, log_level=LogLevel.SILENT)
        arrays = _run_in_time(session, list(wanted), inputs)
    except Exception:  # onnxruntime's errors have no common base, nor has protobuf's
        return {}
    found = zip(wanted.values(), arrays, strict=True)
    return {value: array for value, array in found if isinstance(array, np.ndarray)}


def _run_in_time(session: Session, wanted: list[str], inputs: Arrays) -> list[Any]:
    """Runs a session, which fails if that takes too long."""
    import onnxruntime as ort

    options = ort.RunOptions()
    timer = Timer(_SECONDS, setattr, (options, "terminate", True))
    timer.start()
    try:
        found: list[Any] = session.run(wanted, dict(inputs), options)
        return found
    finally:
        timer.cancel()


def _feeds(model: ir.Model, samples: Sequence[Arrays]) -> tuple[Arrays, Arrays]:
    """One sample; and another, twice where the model leaves the batch open."""
    sizes = Sizes(model)
    shapes = {name: sizes.shape(value) or () for name, value in graph_inputs(model).items()}
    made: list[Arrays] = list(samples)
    for fill in (0, 1)[len(made) :]:
        made.append(
            {
                # Indexes start at 0, but loops had better run, and sums not be 0.
                name: np.full(
                    [n or 1 for n in shapes[name]],
                    fill + dtype.is_floating_point(),
                    dtype.numpy(),
                )
                for name, value in graph_inputs(model).items()
                if (dtype := value.dtype) is not None and dtype is not ir.DataType.UNDEFINED
            }
        )
    batch, inputs = _batch_name(model), graph_inputs(model)
    return made[0], {name: _doubled(array, inputs[name], batch) for name, array in made[1].items()}


def _doubled(array: npt.NDArray[Any], value: ir.Value, batch: str | None) -> npt.NDArray[Any]:
    """An array for an input, twice as long along the axes that are the batch."""
    for axis, dim in enumerate(value.shape or ()):
        if batch is not None and axis < array.ndim and dimension_name(dim) == batch:
            array = np.concatenate([array, array], axis)
    return array


def _batch_name(model: ir.Model) -> str | None:
    """Name of the batch, if all inputs that leave axis 0 open call it the same."""
    names = {name for value in graph_inputs(model).values() if (name := _first(value))}
    return names.pop() if len(names) == 1 else None


def _first(value: ir.Value) -> str | None:
    return dimension_name(value.shape[0]) if value.shape else None
