"""What to do about data that does not fit: the last part of a message, which must not mislead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

CLASS_NAMES = "give for each sample the index of its class in the order of the model's classes"
"""What to do about labels that are strings."""

_PIXELS = 255  # the largest value of a pixel in 8 bits


def names_hint(missing: Sequence[str], extra: Sequence[str], label: str) -> str:
    """Says what to do about arrays whose names are not those that a model wants.

    Args:
        missing: Inputs for which there is no array.
        extra: Arrays that are for nothing.
        label: The name of the array that holds the labels.
    """
    if missing and extra:
        return "rename the arrays to the names of the inputs"
    if missing:
        return "add the arrays that are missing"
    return (
        f"leave out {list(extra)}, which nothing reads (labels are named {label!r}, target values "
        "as their output)"
    )


def type_hint(array: npt.NDArray[Any], want: np.dtype[Any]) -> str:
    """Says how to convert an array that is not of the type of its input, keeping its meaning.

    Args:
        array: The array; its values are finite.
        want: The type of the input.
    """
    convert = f"convert it with astype({want.name!r})"
    if not array.size or array.dtype.kind not in "iuf":
        return convert
    low, high = array.min(), array.max()
    if want.kind == "b":
        if np.isin(array, (0, 1)).all():
            return convert
        return (
            f"its values are from {low:g} to {high:g}, so say which of them mean True, for example "
            "with x != 0 or x > 0.5"
        )
    if want.kind in "iu" and not (array == np.rint(array)).all():
        cut = f"a conversion would cut its values off, which are from {low:g} to {high:g}"
        if low >= 0 and high <= 1 and np.iinfo(want).max >= _PIXELS:
            return (
                f"{cut}: the input takes whole numbers. If these are pixels divided by {_PIXELS}, "
                f"give them as they were, numpy.{want.name}(numpy.rint(x * {_PIXELS}))"
            )
        return f"{cut}: the input takes whole numbers; give them as they were before scaling"
    images = array.dtype == np.uint8 or (array.ndim > 2 and low >= 0 and high <= _PIXELS)
    if array.dtype.kind in "iu" and images and high > 1:
        return (
            "these look like raw pixels: scale them as in the model's training, for example "
            f"(x / {_PIXELS}).astype({want.name!r})"
        )
    return convert


def label_hint(labels: npt.NDArray[Any]) -> str:
    """Says how to make class indexes of labels that are none."""
    if labels.dtype.kind in "US":
        return CLASS_NAMES
    if labels.ndim == 2:
        return "one-hot labels become indexes with numpy.argmax(labels, axis=1)"
    if labels.ndim == 1 and labels.dtype.kind == "b":
        return "True becomes class 1 with labels.astype('int64')"
    if labels.ndim == 1 and (labels == np.rint(labels)).all():
        return "class numbers that are floats become integers with labels.astype('int64')"
    return "values to learn that are no classes go into an array named as the model's output"
