"""Draws inputs at random for models to be timed with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.data.batch_axis import unbatched_inputs
from onnx_cgmq.data.specs import input_specs
from onnx_cgmq.errors import ConfigError, DataError
from onnx_cgmq.graph.input_shapes import graph_inputs, set_input_shapes
from onnx_cgmq.ort.sizes import Sizes

_CACHE: Final = "past"
"""How names of inputs begin that hold what a decoder computed of earlier tokens."""

_MASK: Final = "mask"
"""What is in the name of an input that has a number for each token, those of the cache included."""


@dataclass(frozen=True)
class Lengths:
    """Lengths of a sequence, for inputs that leave them open.

    Attributes:
        rows: How many tokens or rows a call reads; ``None`` leaves open what is open.
        past: How many tokens the cache holds, if the model has one.
    """

    rows: int | None = None
    past: int | None = None

    def shapes(self, model: ir.Model, given: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
        """Returns the shapes of inputs for one sample, beside those that are given.

        Raises:
            ConfigError: The model has no input with such a length, or a length is negative.
        """
        if self.rows is None and self.past is None:
            return {name: list(shape) for name, shape in given.items()}
        if (self.rows or 0) < 0 or (self.past or 0) < 0:
            raise ConfigError("rows and past are numbers of tokens; they can't be negative")
        inputs = graph_inputs(model)
        caches = [name for name in inputs if name.startswith(_CACHE)]
        if self.past is not None and not caches:
            raise ConfigError(
                f"past {self.past}: the model has no input whose name begins with '{_CACHE}'; its "
                f"inputs are {', '.join(inputs)}: leave it out, or give shapes"
            )
        whole, found = unbatched_inputs(model), {}
        for name, value in inputs.items():
            if name in given or value.shape is None:
                continue
            length = self.past if name in caches else self.rows
            if length is not None and _MASK in name:
                length += self.past or 0
            batched = name not in whole
            open_sizes = [
                axis
                for axis, size in enumerate(value.shape)
                if not isinstance(size, int) and not (batched and axis == 0)
            ]
            if open_sizes and length is not None:
                found[name] = [
                    size if isinstance(size, int) else length if axis in open_sizes else 1
                    for axis, size in enumerate(value.shape)
                ]
        if not found:
            raise ConfigError(
                "no input of the model leaves a length open, so rows and past say nothing; leave "
                "them out"
            )
        return {**found, **{name: list(shape) for name, shape in given.items()}}


def random_inputs(
    model: ir.Model, shapes: Mapping[str, Sequence[int]], batch: int, lengths: Lengths
) -> dict[str, npt.NDArray[Any]]:
    """Draws inputs from the standard normal distribution; those of other types are zeros.

    Args:
        model: The model.
        shapes: Shapes by input name, for one sample, where the model leaves sizes open.
        batch: Number of samples, where the model leaves it open.
        lengths: Lengths of inputs whose shapes are not given.

    Raises:
        DataError: A size is open.
        ConfigError: Shapes or lengths are not for this model.
    """
    set_input_shapes(model, lengths.shapes(model, shapes))
    sizes = Sizes(model)
    generator = np.random.default_rng(0)
    values = {str(value.name): value for value in model.graph.inputs}
    inputs = {}
    for spec in input_specs(model):
        shape = sizes.shape(values[spec.name])
        if shape is None or None in shape:
            raise DataError(
                f"input {spec}: some of its sizes are open; give data, or its shape as "
                f"--shape {spec.name}=1x3x224x224 (shapes={{...}} in Python)"
            )
        full = [1 if size is None else size for size in shape]
        if full and spec.fixed_batch is None:
            full[0] = batch
        drawn = generator.standard_normal(full)
        inputs[spec.name] = (
            drawn.astype(spec.dtype) if spec.dtype.kind == "f" else np.zeros(full, spec.dtype)
        )
    return inputs
