"""The inputs of a model (names, types, shapes), and the output that holds class scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_cgmq.data.batch_axis import unbatched_inputs
from onnx_cgmq.errors import ModelError


@dataclass(frozen=True)
class InputSpec:
    """One graph input.

    Attributes:
        name: Input name.
        dtype: Element type.
        dims: Sizes, batch axis first; a name or ``None`` stands for any size. The whole is
            ``None`` if the model gives no shape.
        batched: Whether axis 0 counts samples; else a sample is one whole array.
    """

    name: str
    dtype: np.dtype
    dims: tuple[int | str | None, ...] | None
    batched: bool = True

    @property
    def sample_axes(self) -> tuple[int | str | None, ...] | None:
        """Sizes of an array of samples, the number of samples on axis 0."""
        if self.dims is None:
            return None
        return ("samples", *(self.dims[1:] if self.batched else self.dims))

    @property
    def fixed_length(self) -> int | None:
        """Size of the last axis of a sample if the model fixes it, else ``None``."""
        last = (self.sample_axes or (None,))[-1]
        return last if isinstance(last, int) else None

    @property
    def fixed_batch(self) -> int | None:
        """Size of the batch axis if the model fixes it, else ``None``."""
        first = self.dims[0] if self.dims and self.batched else None
        return first if isinstance(first, int) else None

    def __str__(self) -> str:
        shape = "any shape" if self.dims is None else shape_text(self.dims)
        return f"{self.name!r}: {self.dtype} {shape}"


def shape_text(dims: tuple[int | str | None, ...]) -> str:
    """Makes text of a shape for messages, such as ``[batch, 3, ?]``."""
    return "[" + ", ".join("?" if dim is None else str(dim) for dim in dims) + "]"


def input_specs(model: ir.Model) -> tuple[InputSpec, ...]:
    """The inputs that data must supply, in graph order.

    Initializers that the graph lists among its inputs are left out.

    Raises:
        ModelError: An input is not a tensor or has no type.
    """
    whole = unbatched_inputs(model)
    specs = tuple(
        _input_spec(value, batched=value.name not in whole)
        for value in model.graph.inputs
        if value.name not in model.graph.initializers
    )
    if not specs:
        raise ModelError("the model has no inputs, so there is nothing to feed data to")
    return specs


def fixed_batch(specs: tuple[InputSpec, ...]) -> int | None:
    """The batch size that the model fixes, or ``None``."""
    return next((spec.fixed_batch for spec in specs if spec.fixed_batch is not None), None)


def output_names(model: ir.Model) -> tuple[str, ...]:
    """Names of the outputs for which data may have target values: those that are not inputs too."""
    inputs = {value.name for value in model.graph.inputs}
    return tuple(str(v.name) for v in model.graph.outputs if v.name not in inputs)


def class_count(model: ir.Model) -> int | None:
    """Number of classes: the last size of the first float output ``[batch, classes]``, if any."""
    for output in model.graph.outputs:
        shape = output.shape
        if output.dtype is None or not output.dtype.is_floating_point():
            continue  # classifiers of scikit-learn have the class itself as their first output
        if shape is None or len(shape) != 2 or shape[1] == 1:
            continue
        return shape[1] if isinstance(shape[1], int) else None
    return None


def _input_spec(value: ir.Value, *, batched: bool) -> InputSpec:
    if not isinstance(value.type, ir.TensorType):
        raise ModelError(
            f"input {value.name!r} is {value.type or 'untyped'}; only tensor inputs can be fed"
        )
    try:
        dtype = value.type.dtype.numpy()
    except TypeError as error:
        raise ModelError(
            f"input {value.name!r} has type {value.type.dtype.name}: {error}"
        ) from error
    if value.shape is None:
        return InputSpec(str(value.name), dtype, None)
    dims = tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)
    return InputSpec(str(value.name), dtype, dims, batched)
