"""Finds the shapes of all values for one sample: by onnx's inference, or else by onnxruntime."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterable
from functools import cached_property
from typing import Final

import onnx_ir as ir
from onnxscript import optimizer

from onnx_cgmq.contract.identifiers import GATED_DOMAIN
from onnx_cgmq.data.batch_axis import unbatched_inputs
from onnx_cgmq.graph.infer import infer_shapes
from onnx_cgmq.graph.input_shapes import (
    dimension_name,
    dimension_sizes,
    graph_inputs,
    input_shapes,
)
from onnx_cgmq.graph.nodes import standard_op
from onnx_cgmq.graph.operators import mac_spec
from onnx_cgmq.ort.probe import made_up, run_values
from onnx_cgmq.ort.shapes import set_types_of_onnxruntime

_LONGEST: Final = 1000
"""Elements of the longest vector that may be a shape, or a step on the way to one."""


class Sizes:
    """The shapes of a model's values for one sample.

    Sizes of inputs are those stored in the model's metadata
    (:func:`~onnx_cgmq.graph.input_shapes.set_input_shapes`). A batch size (axis 0 of an input) that
    is open is 1. Sizes that follow from these only through the graph are inferred again.

    Attributes:
        samples: The number of samples that the shapes are for. It is 1 unless the model fixes the
            batch size of every input.
    """

    def __init__(self, model: ir.Model, *, open_as: int | None = None) -> None:
        """Reads the shapes of the model's inputs.

        Args:
            model: The model.
            open_as: What every size is that the inputs leave open; by default it stays open.

        Raises:
            ModelError: The shapes stored in the model are damaged.
            ConfigError: They give one dimension two sizes.
        """
        self._model = model
        inputs, given = graph_inputs(model), input_shapes(model)
        self._sizes = dimension_sizes(inputs, given)
        whole = unbatched_inputs(model)
        batched = [value for name, value in inputs.items() if name not in whole]
        for value in batched:
            name = dimension_name(value.shape[0]) if value.shape else None
            if name is not None:
                self._sizes.setdefault(name, 1)
        if open_as is not None:
            names = (dimension_name(dim) for value in inputs.values() for dim in value.shape or ())
            self._sizes = {**{name: open_as for name in names if name}, **self._sizes}
        self._inputs = {
            name: given.get(name)
            or _with_open(
                self._declared(value) if name in whole else self._sample_shape(value), open_as
            )
            for name, value in inputs.items()
        }
        batches = {v.shape[0] for v in batched if v.shape and len(v.shape) > 1}
        fixed = batches.pop() if len(batches) == 1 else None
        self.samples: int = fixed if isinstance(fixed, int) and fixed > 0 else 1

    def shape(self, value: ir.Value) -> tuple[int | None, ...] | None:
        """Returns the shape of a value.

        A size is ``None`` if it depends on the data. The shape is ``None`` if the rank is unknown.
        """
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

    def with_ones(self, value: ir.Value) -> tuple[int | None, ...] | None:
        """Returns the shape of a value where every size that the inputs leave open is 1.

        What the graph makes of these sizes is then known too, such as the number of heads in
        ``Reshape(rows, length, -1, 8)``. An axis of which nothing would be left is 1 long.
        """
        shape = self._at_one.shape(value)
        return None if shape is None else tuple(1 if n == 0 else n for n in shape)

    @cached_property
    def _at_one(self) -> Sizes:
        return Sizes(self._model, open_as=1) if self._is_open else self

    @property
    def _is_open(self) -> bool:
        """Whether an input has an open size."""
        return any(shape is None or None in shape for shape in self._inputs.values())

    def _sample_shape(self, value: ir.Value) -> tuple[int | None, ...] | None:
        declared = self._declared(value)
        if declared and declared[0] is None:
            return (1, *declared[1:])
        return declared

    def _declared(self, value: ir.Value) -> tuple[int | None, ...] | None:
        """Returns the shape that the model declares, with known sizes for named dimensions."""
        if value.shape is None:
            return None
        return tuple(
            dim if isinstance(dim, int) else self._sizes.get(dimension_name(dim) or "")
            for dim in value.shape
        )

    @cached_property
    def _inferred(self) -> dict[str, tuple[int | None, ...]]:
        """Shapes of all values by name, inferred from the shapes of the inputs."""
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
        found = _shapes_of(values)
        if all(None not in found.get(str(value.name), (None,)) for value in values):
            return found
        # Shapes are known now, so what the graph computes of them can be computed here too.
        _fold_shapes(sized)
        for value in values:
            if value.const_value is None:
                value.shape = None
        infer_shapes(sized)
        self._ask_onnxruntime(sized)
        self._run(sized)
        return {**found, **_shapes_of(v for node in sized.graph.all_nodes() for v in node.outputs)}

    def _run(self, sized: ir.Model) -> None:
        """Sets sizes of operands that only a run tells, behind a loop for example, in place.

        They count if they are the same in two runs on different numbers.
        """
        values = [] if self._is_open else _open_operands(sized)
        if not values:
            return
        shapes = {name: shape or () for name, shape in self._inputs.items()}
        first, second = (run_values(sized, values, made_up(sized, shapes, i)) for i in (0, 1))
        for value in values:
            one, other = first.get(value), second.get(value)
            if one is not None and other is not None and one.ndim == other.ndim:
                pairs = zip(one.shape, other.shape, strict=True)
                value.shape = ir.Shape([a if a == b else None for a, b in pairs])
        infer_shapes(sized)

    @staticmethod
    def _ask_onnxruntime(sized: ir.Model) -> None:
        """Sets shapes after operators that only onnxruntime knows."""
        if all(node.domain != "com.microsoft" for node in sized.graph):
            return
        outputs = [value for node in sized.graph for value in node.outputs if value.name]
        unknown = [v for v in outputs if v.shape is None or not v.shape.is_static()]
        if unknown:
            set_types_of_onnxruntime(sized, unknown)


def _shapes_of(values: Iterable[ir.Value]) -> dict[str, tuple[int | None, ...]]:
    """Shapes by name, without those of unknown rank."""
    return {
        str(value.name): tuple(d if isinstance(d, int) else None for d in value.shape)
        for value in values
        if value.shape is not None
    }


def _with_open(
    shape: tuple[int | None, ...] | None, size: int | None
) -> tuple[int | None, ...] | None:
    """A shape whose open sizes are another one."""
    return None if shape is None else tuple(size if n is None else n for n in shape)


def _open_operands(model: ir.Model) -> list[ir.Value]:
    """Computed operands with open sizes of the nodes of the main graph that multiply."""
    read = (
        value
        for node in model.graph
        if (spec := mac_spec(node)) is not None
        for _, value in spec.operand_values(node)
    )
    return [
        value
        for value in dict.fromkeys(read)
        if value.producer() is not None and (value.shape is None or not value.shape.is_static())
    ]


def _fold_shapes(model: ir.Model) -> None:
    """Computes what follows from known shapes, in place: small constants, never weights."""
    logger = logging.getLogger("onnxscript")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.suppress(Exception):  # whatever an operator does not like: sizes stay open
            optimizer.fold_constants_ir(
                model, onnx_shape_inference=True, should_fold=_is_filled_shape
            )
    finally:
        logger.setLevel(level)


def _is_filled_shape(node: ir.Node) -> bool | None:
    """Whether a node fills a vector as short as shapes are; ``None`` lets the pass decide."""
    if standard_op(node) != "ConstantOfShape" or node.inputs[0] is None:
        return None
    shape = node.inputs[0].const_value
    return True if shape is not None and math.prod(shape.numpy().tolist()) <= _LONGEST else None


def _bypass_quantizers(model: ir.Model) -> None:
    """Removes gated quantizers, which keep shapes, so that inference need not read them."""
    gated = [node for node in model.graph if node.domain == GATED_DOMAIN]
    for node in gated:
        source = node.inputs[0]
        assert source is not None
        node.outputs[0].replace_all_uses_with(source, replace_graph_outputs=True)
    for node in reversed(gated):
        model.graph.remove(node, safe=True)
    for identifier in [name for name in model.functions if name[0] == GATED_DOMAIN]:
        del model.functions[identifier]
