"""Checks that arrays fit a model's inputs. Messages name the input, the place, and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_cgmq.data.hints import label_hint, names_hint, type_hint
from onnx_cgmq.data.specs import InputSpec, shape_text
from onnx_cgmq.errors import DataError

LABEL = "label"
"""The name of the array that holds the labels."""

_NO_BATCH_AXIS = (
    ". This input has no batch axis, so a sample is one whole array: stack samples along a new "
    "axis 0, or give a file or an item for each"
)

_FINITE_CHUNK = 1 << 22  # elements checked together, so that the check needs little memory


def check_inputs(
    arrays: Mapping[str, npt.NDArray[Any]],
    specs: Sequence[InputSpec],
    where: str,
    outputs: Sequence[str] = (),
) -> dict[str, npt.NDArray[Any]]:
    """Checks arrays against a model, and converts them to the types of its inputs.

    Args:
        arrays: Arrays by the name of an input, or of an output for its target values; samples along
            axis 0.
        specs: The inputs of the model.
        where: Where the data comes from, for the messages; such as a file name.
        outputs: Names of the model's outputs.

    Returns:
        The inputs in the order of the model, then target values: floats as float32, integers as
        int64. An array is not copied if its type already fits.

    Raises:
        DataError: A name, shape, type or value does not fit, or there are no samples.
    """
    wanted = [spec.name for spec in specs]
    missing = sorted(set(wanted) - set(arrays))
    if missing or not set(arrays) <= {*wanted, *outputs}:
        extra = sorted(set(arrays) - {*wanted, *outputs})
        problems = [f"missing {missing}"] if missing else []
        problems += [f"not an input of the model {extra}"] if extra else []
        raise DataError(
            f"{where}: {'; '.join(problems)}. Found {sorted(arrays)}, wanted {wanted} "
            f"and optionally {LABEL!r}; {names_hint(missing, extra, LABEL)}"
        )
    arrays = one_for_all(arrays, specs)
    checked = {spec.name: _check_array(arrays[spec.name], spec, where) for spec in specs}
    for name in (name for name in outputs if name in arrays and name not in checked):
        checked[name] = _check_target(arrays[name], f"{where}: target values {name!r}")
    counts = {name: len(array) for name, array in checked.items()}
    if len(set(counts.values())) > 1:
        raise DataError(
            f"{where}: the arrays have different numbers of samples on axis 0: {counts}"
        )
    if not next(iter(counts.values())):
        raise DataError(f"{where}: the data has no samples; give at least one")
    return checked


def one_sample(
    arrays: Mapping[str, npt.NDArray[Any]], specs: Sequence[InputSpec]
) -> dict[str, npt.NDArray[Any]]:
    """Gives an input without a batch axis one for samples, if its array is that of one sample."""
    lifted = dict(arrays)
    for spec in specs:
        array = lifted.get(spec.name)
        if array is not None and not spec.batched and array.ndim == len(spec.dims or ()):
            lifted[spec.name] = array[None]
    return lifted


def one_for_all(
    arrays: Mapping[str, npt.NDArray[Any]], specs: Sequence[InputSpec]
) -> dict[str, npt.NDArray[Any]]:
    """Repeats what is given once for an input without a batch axis, such as a scalar."""
    lifted = one_sample(arrays, specs)
    counts = [len(a) for name, a in lifted.items() if a.ndim]
    count = max(counts, default=1)
    for spec in specs:
        array = lifted.get(spec.name)
        if array is not None and not spec.batched and array.ndim and len(array) == 1 < count:
            lifted[spec.name] = np.broadcast_to(array, (count, *array.shape[1:]))
    return lifted


def check_labels(
    labels: npt.NDArray[Any], count: int, classes: int | None, where: str
) -> npt.NDArray[np.int64]:
    """Checks labels, and returns them as int64 class indexes of shape ``[samples]``.

    Args:
        labels: Integers, shape ``[samples]`` or ``[samples, 1]``.
        count: Number of samples.
        classes: Number of classes, or ``None`` if the model does not say.
        where: Where the data comes from, for the messages.

    Raises:
        DataError: The labels are not class indexes, or their number is not that of the samples.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise DataError(
            f"{where}: labels must be integer class indexes of shape [samples], but are "
            f"{labels.dtype} {shape_text(labels.shape)}; {label_hint(labels)}"
        )
    if len(labels) != count:
        raise DataError(
            f"{where}: {len(labels)} labels for {count} samples; give one label for each sample"
        )
    wrong = (labels < 0) if classes is None else (labels < 0) | (labels >= classes)
    if wrong.any():
        sample = int(np.argmax(wrong))
        allowed = "0 or more" if classes is None else f"0 to {classes - 1}"
        raise DataError(
            f"{where}: label {labels[sample]} of sample {sample} is not a class index of the model "
            f"({allowed})"
        )
    return labels.astype(np.int64, copy=False)


def _check_array(array: npt.NDArray[Any], spec: InputSpec, where: str) -> npt.NDArray[Any]:
    label = f"{where}: input {spec.name!r}"
    _check_shape(array, spec, label)
    _check_finite(array, label)
    converted = _convert(array, spec, label)
    if converted.dtype != array.dtype:
        _check_finite(converted, f"{label}, converted to {spec.dtype},")
    return converted


def _check_target(array: npt.NDArray[Any], label: str) -> npt.NDArray[Any]:
    if array.ndim == 0:
        raise DataError(f"{label}: a single number; stack the samples along axis 0")
    _check_finite(array, label)
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int64, copy=False)


def _check_shape(array: npt.NDArray[Any], spec: InputSpec, label: str) -> None:
    if array.ndim == 0:
        raise DataError(f"{label}: a single number; stack the samples along axis 0")
    wanted = spec.sample_axes
    if wanted is None:
        return
    # Axis 0 counts samples; Samples.batches() serves a batch size that the model fixes.
    problems = [
        f"axis {axis} is {size}, wanted {dim}"
        for axis, (size, dim) in enumerate(zip(array.shape, wanted, strict=False))
        if isinstance(dim, int) and size != dim
    ]
    if array.ndim != len(wanted):
        problems = [f"{array.ndim} axes, wanted {len(wanted)}"]
    if problems:
        raise DataError(
            f"{label}: shape {shape_text(array.shape)} does not fit {shape_text(wanted)}: "
            f"{'; '.join(problems)}{'' if spec.batched else _NO_BATCH_AXIS}"
        )


def _check_finite(array: npt.NDArray[Any], label: str) -> None:
    if array.dtype.kind != "f" or not array.size:
        return
    rows = max(1, _FINITE_CHUNK * len(array) // array.size)
    for start in range(0, len(array), rows):
        chunk = array[start : start + rows]
        finite = np.isfinite(chunk)
        if finite.all():
            continue
        position = tuple(int(i) for i in np.argwhere(~finite)[0])
        kind = "NaN" if np.isnan(chunk[position]) else "infinity"
        raise DataError(
            f"{label}: {kind} in sample {start + position[0]} (at index "
            f"{list(position[1:])}); remove such samples or repair them"
        )


def _convert(array: npt.NDArray[Any], spec: InputSpec, label: str) -> npt.NDArray[Any]:
    """Converts an array to the input's type if that keeps its meaning.

    Floats convert to floats of any precision, integers to integers that can hold their values.
    """
    have, want = array.dtype, spec.dtype
    if have == want:
        return array
    # ml_dtypes' bfloat16 has kind "V" but is a float.
    want_float = want.kind == "f" or want.name == "bfloat16"
    if have.kind == "f" and want_float:
        with np.errstate(over="ignore"):  # _check_array reports an overflow, with its sample
            return array.astype(want)
    if have.kind in "iu" and want.kind in "iu":
        limits = np.iinfo(want)
        if not array.size or (int(array.min()) >= limits.min and int(array.max()) <= limits.max):
            return array.astype(want)
        raise DataError(
            f"{label}: values from {array.min()} to {array.max()} do not fit the model's {want}"
        )
    raise DataError(f"{label}: type {have}, wanted {want}; {type_hint(array, want)}")
