"""Shapes that inference can't tell, from runs of the model in onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.graph.infer import infer_shapes
from onnx_cgmq.graph.input_shapes import dimension_name, graph_inputs, open_inputs
from onnx_cgmq.graph.nodes import standard_op
from onnx_cgmq.graph.operators import quantized_spec
from onnx_cgmq.ort.probe import Arrays, made_up, run_values
from onnx_cgmq.ort.sizes import Sizes


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
        first = run_values(model, values, one)
        if not first:
            return
        second = run_values(model, values, other)
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


def _feeds(model: ir.Model, samples: Sequence[Arrays]) -> tuple[Arrays, Arrays]:
    """One sample; and another, twice where the model leaves the batch open."""
    sizes = Sizes(model)
    shapes = {name: sizes.shape(value) or () for name, value in graph_inputs(model).items()}
    made = [*samples, *(made_up(model, shapes, fill) for fill in (0, 1)[len(samples) :])]
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
