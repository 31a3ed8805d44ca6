"""Shapes of inputs for one sample: what the user or the data say about sizes that are open."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from onnx_cgmq.contract.identifiers import SHAPES_KEY
from onnx_cgmq.errors import DAMAGE, ConfigError, ModelError, one_line

Shape = tuple[int, ...]


def set_input_shapes(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> None:
    """Notes the shapes of inputs at which the model's cost is counted, in place.

    The model itself goes on taking any size that it took.

    Args:
        model: The model.
        shapes: Shapes by input name, for one sample.

    Raises:
        ConfigError: There is no such input, or it can't have that shape.
    """
    inputs = graph_inputs(model)
    for name, shape in shapes.items():
        if name not in inputs:
            raise ConfigError(
                f"shape of {name!r}: the model has no such input; it has {', '.join(inputs)}"
            )
        declared = inputs[name].shape
        if declared is not None and not _fits(declared, shape):
            wanted = ", ".join("?" if dim is None else str(dim) for dim in declared)
            raise ConfigError(
                f"shape {'x'.join(map(str, shape))} of input {name!r} does not fit the model's "
                f"[{wanted}]"
            )
    known = {**input_shapes(model), **{name: tuple(shape) for name, shape in shapes.items()}}
    dimension_sizes(inputs, known)
    if known:
        model.metadata_props[SHAPES_KEY] = json.dumps(known, separators=(",", ":"))


def open_inputs(model: ir.Model) -> tuple[str, ...]:
    """Names of the inputs that leave a size open besides the batch."""
    return tuple(
        name
        for name, value in graph_inputs(model).items()
        if value.shape is None or any(not isinstance(dim, int) for dim in value.shape[1:])
    )


def input_shapes(model: ir.Model) -> dict[str, Shape]:
    """The shapes that :func:`set_input_shapes` noted.

    Raises:
        ModelError: They are damaged.
    """
    try:
        fields = json.loads(model.metadata_props.get(SHAPES_KEY, "{}"))
        shapes = {str(name): tuple(int(size) for size in shape) for name, shape in fields.items()}
        inputs = graph_inputs(model)
        for name, shape in shapes.items():
            if min(shape, default=1) < 1 or not _fits(inputs[name].shape, shape):
                raise ValueError(f"{list(shape)} does not fit the input {name!r}")
    except DAMAGE as error:
        raise ModelError(
            f"the input shapes in the model's metadata are damaged: {one_line(error)}; "
            f"write the model again, or remove {SHAPES_KEY!r}"
        ) from error
    return shapes


def graph_inputs(model: ir.Model) -> dict[str, ir.Value]:
    """The inputs by name that a caller must give: those without an initializer."""
    return {
        str(value.name): value
        for value in model.graph.inputs
        if value.name not in model.graph.initializers
    }


def _fits(declared: ir.Shape | None, shape: Sequence[int]) -> bool:
    """Whether an input with a declared shape can have another one."""
    return declared is None or (
        len(declared) == len(shape)
        and all(
            size == dim or not isinstance(dim, int)
            for dim, size in zip(declared, shape, strict=True)
        )
    )


def dimension_sizes(
    inputs: Mapping[str, ir.Value], shapes: Mapping[str, Sequence[int]]
) -> dict[str, int]:
    """Sizes of named dimensions.

    Raises:
        ConfigError: Two shapes disagree.
    """
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        for dim, size in zip(inputs[name].shape or (), shape, strict=False):
            label = dimension_name(dim)
            if label is not None and sizes.setdefault(label, size) != size:
                raise ConfigError(
                    f"dimension '{label}' of input {name!r} is {size}, but {sizes[label]} in "
                    "another place; give equal sizes"
                )
    return sizes


def dimension_name(dim: int | ir.SymbolicDim) -> str | None:
    """Name of a dimension; some exporters call all those that they don't know ``?``."""
    return None if isinstance(dim, int) or dim.value in (None, "", "?") else str(dim.value)
