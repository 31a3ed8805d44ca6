"""Sizes for one sample: what the user or the data say about dimensions that a model leaves open."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Final

import onnx_ir as ir

from onnx_cgmq.errors import ConfigError, ModelError
from onnx_cgmq.graph.gating.gated_qdq import GATED_DOMAIN
from onnx_cgmq.graph.infer import infer_shapes
from onnx_cgmq.graph.ort_shapes import set_types_of_onnxruntime

SHAPES_KEY: Final = "onnx_cgmq.shapes"
"""Key of the shapes of inputs in the model's ``metadata_props``."""

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
    inputs = _inputs(model)
    for name, shape in shapes.items():
        if name not in inputs:
            raise ConfigError(
                f"shape of {name!r}: the model has no such input; it has {', '.join(inputs)}"
            )
        declared = inputs[name].shape
        if declared is None:
            continue
        fits = len(declared) == len(shape) and all(
            size == dim or not isinstance(dim, int)
            for dim, size in zip(declared, shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("?" if dim is None else str(dim) for dim in declared)
            raise ConfigError(
                f"shape {'x'.join(map(str, shape))} of input {name!r} does not fit the model's "
                f"[{wanted}]"
            )
    known = {**input_shapes(model), **{name: tuple(shape) for name, shape in shapes.items()}}
    _bindings(inputs, known)
    if known:
        model.metadata_props[SHAPES_KEY] = json.dumps(known, separators=(",", ":"))


def open_inputs(model: ir.Model) -> tuple[str, ...]:
    """Names of the inputs that leave a size open besides the batch."""
    return tuple(
        name
        for name, value in _inputs(model).items()
        if value.shape is None or any(not isinstance(dim, int) for dim in value.shape[1:])
    )


def input_shapes(model: ir.Model) -> dict[str, Shape]:
    """The shapes that :func:`set_input_shapes` noted.

    Raises:
        ModelError: They are damaged.
    """
    try:
        fields = json.loads(model.metadata_props.get(SHAPES_KEY, "{}"))
        return {str(name): tuple(int(size) for size in shape) for name, shape in fields.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(
            f"the input shapes in the model's metadata are damaged: {error}"
        ) from error


class Sizes:
    """Shapes of a model's values for one sample.

    Sizes come from the shapes noted for the inputs; a batch (axis 0 of an input) that is open is 1.
    Where a size follows from these only through the graph, shapes are inferred anew.

    Attributes:
        samples: Samples in these shapes: the batch where the model fixes one on every input.
    """

    def __init__(self, model: ir.Model) -> None:
        """Reads the model's inputs.

        Raises:
            ModelError: The shapes noted in the model are damaged.
            ConfigError: They give one dimension two sizes.
        """
        self._model = model
        inputs, given = _inputs(model), input_shapes(model)
        self._sizes = _bindings(inputs, given)
        for value in inputs.values():
            name = _name(value.shape[0]) if value.shape else None
            if name is not None:
                self._sizes.setdefault(name, 1)
        self._inputs = {
            name: given.get(name) or self._sample_shape(value) for name, value in inputs.items()
        }
        batches = {v.shape[0] for v in inputs.values() if v.shape and len(v.shape) > 1}
        fixed = batches.pop() if len(batches) == 1 else None
        self.samples: int = fixed if isinstance(fixed, int) and fixed > 0 else 1

    def shape(self, value: ir.Value) -> tuple[int | None, ...] | None:
        """Shape of a value; ``None`` for sizes that the data decide, or if the rank is unknown."""
        gated = value.producer()
        if gated is not None and gated.domain == GATED_DOMAIN and gated.inputs[0] is not None:
            value = gated.inputs[0]
        if value.const_value is not None:
            return tuple(int(size) for size in value.const_value.shape.numpy())
        if value.name in self._inputs:
            return self._inputs[value.name]
        shape = self._declared(value)
        if shape is None or None in shape:
            return self._inferred.get(str(value.name), shape)
        return shape

    def _sample_shape(self, value: ir.Value) -> tuple[int | None, ...] | None:
        declared = self._declared(value)
        if declared and declared[0] is None:
            return (1, *declared[1:])
        return declared

    def _declared(self, value: ir.Value) -> tuple[int | None, ...] | None:
        """The shape that the model has, with the sizes of dimensions that inputs name."""
        if value.shape is None:
            return None
        return tuple(
            dim if isinstance(dim, int) else self._sizes.get(_name(dim) or "")
            for dim in value.shape
        )

    @cached_property
    def _inferred(self) -> dict[str, tuple[int | None, ...]]:
        """Shapes by name, inferred with the inputs at their sizes."""
        sized = self._model.clone()
        _bypass_quantizers(sized)
        for value in sized.graph.inputs:
            shape = self._inputs.get(str(value.name))
            if shape is not None:
                value.shape = ir.Shape(shape)
        values = [v for node in sized.graph.all_nodes() for v in node.outputs]
        for value in values:
            value.shape = None
        infer_shapes(sized)
        self._ask_onnxruntime(sized)
        return {
            str(value.name): tuple(d if isinstance(d, int) else None for d in value.shape)
            for value in values
            if value.shape is not None
        }

    @staticmethod
    def _ask_onnxruntime(sized: ir.Model) -> None:
        """Shapes behind operators that only onnxruntime knows."""
        if all(node.domain != "com.microsoft" for node in sized.graph):
            return
        outputs = [value for node in sized.graph for value in node.outputs if value.name]
        unknown = [v for v in outputs if v.shape is None or not v.shape.is_static()]
        if unknown:
            set_types_of_onnxruntime(sized, unknown)


def _inputs(model: ir.Model) -> dict[str, ir.Value]:
    return {
        str(value.name): value
        for value in model.graph.inputs
        if value.name not in model.graph.initializers
    }


def _bindings(
    inputs: Mapping[str, ir.Value], shapes: Mapping[str, Sequence[int]]
) -> dict[str, int]:
    """Sizes of named dimensions.

    Raises:
        ConfigError: Two shapes disagree.
    """
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        for dim, size in zip(inputs[name].shape or (), shape, strict=False):
            label = _name(dim)
            if label is not None and sizes.setdefault(label, size) != size:
                raise ConfigError(
                    f"dimension '{label}' of input {name!r} is {size}, but {sizes[label]} in "
                    "another place; give equal sizes"
                )
    return sizes


def _name(dim: int | ir.SymbolicDim) -> str | None:
    """Name of a dimension; some exporters call all those that they don't know ``?``."""
    return None if isinstance(dim, int) or dim.value in (None, "", "?") else str(dim.value)


def _bypass_quantizers(model: ir.Model) -> None:
    """Takes gated quantizers out: they keep shapes, and inference need not read their functions."""
    gated = [node for node in model.graph if node.domain == GATED_DOMAIN]
    for node in gated:
        source = node.inputs[0]
        assert source is not None
        node.outputs[0].replace_all_uses_with(source, replace_graph_outputs=True)
    for node in reversed(gated):
        model.graph.remove(node, safe=True)
    for identifier in [name for name in model.functions if name[0] == GATED_DOMAIN]:
        del model.functions[identifier]
