"""Shapes of inputs for one sample, where the model leaves sizes open."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from onnx_cgmq.contract.identifiers import SHAPES_KEY
from onnx_cgmq.data.batch_axis import unbatched_inputs
from onnx_cgmq.errors import DAMAGE, ConfigError, ModelError, one_line

Shape = tuple[int, ...]


def set_input_shapes(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> None:
    """Stores the shapes of inputs with which cost is counted in the model's metadata, in place.

    The model still accepts every size that it accepted before.

    Args:
        model: The model.
        shapes: Shapes by input name, for one sample.

    Raises:
        ConfigError: The model has no input of a name, or an input can't have its shape.
    """
    inputs = graph_inputs(model)
    for name, shape in shapes.items():
        if name not in inputs:
            raise ConfigError(
                f"shape of {name!r}: the model has no such input; its inputs are "
                f"{', '.join(inputs)}"
            )
        declared = inputs[name].shape
        if declared is not None and not _fits(declared, shape):
            wanted = ", ".join("?" if dim is None else str(dim) for dim in declared)
            raise ConfigError(
                f"shape {'x'.join(map(str, shape))} of input {name!r} does not fit [{wanted}], "
                "which the model declares; give sizes that fit"
            )
    known = {**input_shapes(model), **{name: tuple(shape) for name, shape in shapes.items()}}
    dimension_sizes(inputs, known)
    if known:
        model.metadata_props[SHAPES_KEY] = json.dumps(known, separators=(",", ":"))


def open_inputs(model: ir.Model) -> tuple[str, ...]:
    """Returns the names of the inputs that leave a size open besides that of the batch."""
    whole = unbatched_inputs(model)
    return tuple(
        name
        for name, value in graph_inputs(model).items()
        if value.shape is None
        or any(not isinstance(dim, int) for dim in value.shape[name not in whole :])
    )


def input_shapes(model: ir.Model) -> dict[str, Shape]:
    """Returns the shapes that :func:`set_input_shapes` stored, by input name.

    Raises:
        ModelError: The stored text is damaged.
    """
    try:
        fields = json.loads(model.metadata_props.get(SHAPES_KEY, "{}"))
        shapes = {str(name): tuple(int(size) for size in shape) for name, shape in fields.items()}
        inputs = graph_inputs(model)
        for name, shape in shapes.items():
            if min(shape, default=0) < 0 or not _fits(inputs[name].shape, shape):
                raise ValueError(f"{list(shape)} does not fit the input {name!r}")
    except DAMAGE as error:
        raise ModelError(
            f"the input shapes in the model's metadata are damaged: {one_line(error)}; write the "
            f"model again, or remove '{SHAPES_KEY}' from its metadata"
        ) from error
    return shapes


def graph_inputs(model: ir.Model) -> dict[str, ir.Value]:
    """Returns the inputs that a caller must give, by name: those without an initializer."""
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
    """Returns the sizes of named dimensions that follow from the shapes of inputs.

    Args:
        inputs: The inputs of the model by name.
        shapes: Shapes by input name, for one sample.

    Raises:
        ConfigError: Two shapes give one dimension different sizes.
    """
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        for dim, size in zip(inputs[name].shape or (), shape, strict=False):
            label = dimension_name(dim)
            if label is not None and sizes.setdefault(label, size) != size:
                raise ConfigError(
                    f"dimension '{label}' of input {name!r} is {size}, but {sizes[label]} in "
                    "another shape; give it one size everywhere"
                )
    return sizes


def dimension_name(dim: int | ir.SymbolicDim) -> str | None:
    """Returns the name of a dimension, or ``None`` if it has none.

    ``?`` is no name: some exporters call every dimension so that they don't know.
    """
    return None if isinstance(dim, int) or dim.value in (None, "", "?") else str(dim.value)
