"""Finds the shapes of all values for one sample: by onnx's inference, or else by onnxruntime."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable
from functools import cached_property

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
from onnx_cgmq.ort.shapes import set_types_of_onnxruntime


class Sizes:
    """The shapes of a model's values for one sample.

    Sizes of inputs are those stored in the model's metadata
    (:func:`~onnx_cgmq.graph.input_shapes.set_input_shapes`). A batch size (axis 0 of an input) that
    is open is 1. Sizes that follow from these only through the graph are inferred again.

    Attributes:
        samples: The number of samples that the shapes are for. It is 1 unless the model fixes the
            batch size of every input.
    """

    def __init__(self, model: ir.Model) -> None:
        """Reads the shapes of the model's inputs.

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
        self._inputs = {
            name: given.get(name)
            or (self._declared(value) if name in whole else self._sample_shape(value))
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
        return {**found, **_shapes_of(v for node in sized.graph.all_nodes() for v in node.outputs)}

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


def _fold_shapes(model: ir.Model) -> None:
    """Computes what follows from known shapes, in place: small constants, never weights."""
    logger = logging.getLogger("onnxscript")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.suppress(Exception):  # whatever an operator does not like: sizes stay open
            optimizer.fold_constants_ir(model, onnx_shape_inference=True)
    finally:
        logger.setLevel(level)


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
