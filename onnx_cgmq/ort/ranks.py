"""Shapes that inference can't tell, from runs of the model in onnxruntime."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.graph.infer import infer_shapes
from onnx_cgmq.graph.input_shapes import dimension_name, graph_inputs, open_inputs
from onnx_cgmq.graph.nodes import standard_op
from onnx_cgmq.graph.operators import quantized_spec
from onnx_cgmq.ort.session import LogLevel, new_session
from onnx_cgmq.ort.sizes import Sizes

Arrays = Mapping[str, npt.NDArray[Any]]


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
    try:
        ir.external_data.load_to_model(probe)
        content = ir.serde.serialize_model(probe).SerializeToString()
        session = new_session(content, optimize=False, log_level=LogLevel.SILENT)
        arrays = session.run(list(wanted), dict(inputs))
    except Exception:  # onnxruntime's errors have no common base, nor has protobuf's
        return {}
    found = zip(wanted.values(), arrays, strict=True)
    return {value: array for value, array in found if isinstance(array, np.ndarray)}


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
    batch = _batch_name(model)
    double = {
        name: np.concatenate([array, array])
        if array.ndim and _first(graph_inputs(model)[name]) == batch is not None
        else array
        for name, array in made[1].items()
    }
    return made[0], double


def _batch_name(model: ir.Model) -> str | None:
    """Name of the batch, if all inputs that leave axis 0 open call it the same."""
    names = {name for value in graph_inputs(model).values() if (name := _first(value))}
    return names.pop() if len(names) == 1 else None


def _first(value: ir.Value) -> str | None:
    return dimension_name(value.shape[0]) if value.shape else None
