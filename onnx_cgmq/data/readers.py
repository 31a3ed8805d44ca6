"""Reads what users have into arrays by name. Checks against the model come later."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import onnx

from onnx_cgmq.data.checks import LABEL
from onnx_cgmq.data.hints import CLASS_NAMES
from onnx_cgmq.data.reading import reading
from onnx_cgmq.data.user_code import user_items
from onnx_cgmq.errors import DataError

Item = tuple[dict[str, npt.NDArray[Any]], "npt.NDArray[Any] | None"]
"""Arrays by name, and labels if there are any."""

_NPY_MAGIC: Final = b"\x93NUMPY"
"""How a file with a single array begins."""


class CalibrationReader(Protocol):
    """The method of onnxruntime's ``CalibrationDataReader`` that is used here."""

    def get_next(self) -> Mapping[str, Any] | None:
        """Returns the next batch, or ``None`` at the end."""


def read_npz(path: Path, input_names: Sequence[str]) -> Item:
    """Reads the arrays of an ``.npz`` file, or for a model with one input that of an ``.npy`` file.

    Raises:
        DataError: The file can't be read, or is not such a file of plain arrays.
    """

    def why(error: Exception) -> str:
        if "allow_pickle" in str(error):  # numpy advises to unpickle it, which is not safe
            return (
                "one of them holds Python objects; save arrays of numbers, and samples of "
                "different shapes in files of their own, in one folder"
            )
        return str(error) if is_array or _is_archive(path) else "no zip archive, or truncated"

    is_array = False
    with reading(path, ".npz file of plain arrays", reason=why):
        with path.open("rb") as file:
            is_array = file.read(len(_NPY_MAGIC)) == _NPY_MAGIC
        if not is_array:
            return take_labels(_read_arrays(path), input_names)
    if len(input_names) == 1:
        with reading(path, ".npy file of plain arrays", reason=why), path.open("rb") as file:
            return {input_names[0]: _read_array(file, path.name)}, None
    raise DataError(
        f"{path}: the file has a single array without a name, but the model has the inputs "
        f"{list(input_names)}; save one for each with numpy.savez(file, "
        f"**{{{input_names[0]!r}: array, ...}})"
    )


def _is_archive(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except Exception:  # of the kind that the damage makes it
        return False


def _read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Reads the arrays of an archive to their last bytes, so that all checksums are compared."""
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as file:
                arrays[name.removesuffix(".npy")] = _read_array(file, name)
    return arrays


def _read_array(file: IO[bytes], name: str) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    if file.read(1):
        raise ValueError(f"{name} has more bytes than its shape says")
    return array


def read_test_data_set(folder: Path, input_names: Sequence[str]) -> Item:
    """Reads the inputs in an ONNX ``test_data_set`` folder; ``input_N.pb`` is graph input N.

    Raises:
        DataError: There are too few or too many files, or one is not a serialized tensor.
    """
    files = sorted(folder.glob("input_*.pb"), key=natural)
    wanted = [f"input_{number}.pb" for number in range(len(input_names))]
    if [file.name for file in files] != wanted:
        raise DataError(
            f"{folder}: found {[file.name for file in files]}, wanted {wanted} for the inputs "
            f"{list(input_names)}, in graph order"
        )
    return {name: _read_tensor(file) for name, file in zip(input_names, files, strict=True)}, None


def read_items(
    batches: Iterable[Any],
    input_names: Sequence[str],
    where: str,
    lift: Callable[[Mapping[str, npt.NDArray[Any]]], dict[str, npt.NDArray[Any]]] = dict,
) -> Iterator[Item]:
    """Reads the batches of a reader, one when the one before has been taken.

    Args:
        batches: The batches.
        input_names: The names of the inputs.
        where: Where the data comes from, for the messages.
        lift: Gives the arrays of a batch their batch axis, where inputs have none.

    Raises:
        DataError: There are none, or they have different arrays.
    """
    first: Item | None = None
    for batch in user_items(batches, where):
        arrays, labels = as_item(batch, input_names, where)
        first = first or (arrays, labels)
        if arrays.keys() != first[0].keys():
            raise DataError(
                f"{where}: the batches have arrays of different names; give the same in every batch"
            )
        if (labels is None) != (first[1] is None):
            raise DataError(
                f"{where}: some batches have labels and some have none; give labels in all, or in "
                "none"
            )
        yield lift(arrays), labels
    if first is None:
        raise DataError(
            f"{where}: the data is empty (a reader that was used before must be rewound)"
        )


def as_item(data: Any, input_names: Sequence[str], where: str) -> Item:
    """Reads a batch, in any form that a loader yields, into arrays by name.

    Args:
        data: A mapping by input name (labels under ``label``); ``(inputs, labels)``, where inputs
            is such a mapping, or one array for a model with one input; or that array alone. Arrays
            may be torch tensors.
        input_names: The names of the inputs.
        where: Where the data comes from, for the messages.

    Raises:
        DataError: ``data`` has none of these forms.
    """
    if isinstance(data, Mapping):
        arrays = {str(k): as_array(value, f"{where}: {k!r}") for k, value in data.items()}
        return take_labels(arrays, input_names)
    if isinstance(data, (tuple, list)) and len(data) in (1, 2):
        inputs, labels = as_item(data[0], input_names, where)
        if len(data) == 1 or data[1] is None:
            return inputs, labels
        if labels is not None:
            raise DataError(
                f"{where}: labels are given twice, as {LABEL!r} and beside the inputs; give them "
                "once"
            )
        return inputs, as_array(data[1], f"{where}: the labels")
    if isinstance(data, (tuple, list)) or not hasattr(data, "__array__"):
        raise DataError(
            f"{where}: a {type(data).__name__}"
            + (f" of {len(data)}" if isinstance(data, (tuple, list)) else "")
            + f" is not a batch; give a dict of arrays named {list(input_names)} (and optionally "
            f"{LABEL!r}), or (inputs, labels)"
        )
    if len(input_names) != 1:
        raise DataError(
            f"{where}: an array without a name, but the model has the inputs {list(input_names)}; "
            "give a dict of arrays by input name"
        )
    return {input_names[0]: as_array(data, where)}, None


def as_array(value: Any, where: str) -> npt.NDArray[Any]:
    """Makes a numpy array of an array, a torch tensor or nested numbers; copies only if needed.

    Raises:
        DataError: The value is not numeric.
    """
    try:
        array = np.asarray(value.detach().cpu().numpy() if hasattr(value, "detach") else value)
    except Exception as error:  # of any kind: arrays of users have code of their own
        raise DataError(f"{where}: not an array of numbers ({error})") from error
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        hint = f"; for labels, {CLASS_NAMES}" if array.dtype.kind in "US" else ""
        raise DataError(f"{where}: an array of {array.dtype}, not of numbers{hint}")
    return array


def take_labels(arrays: dict[str, npt.NDArray[Any]], input_names: Sequence[str]) -> Item:
    """Separates the labels from the arrays, unless an input of the model has their name."""
    if LABEL in input_names:
        return arrays, None
    labels = arrays.pop(LABEL, None)
    return arrays, labels


def calibration_batches(reader: CalibrationReader) -> Iterator[Mapping[str, Any]]:
    """Yields the batches of an onnxruntime ``CalibrationDataReader``."""
    while (batch := reader.get_next()) is not None:
        yield batch


def natural(path: Path) -> tuple[tuple[int, str], ...]:
    """A sort key that puts ``input_10`` after ``input_9``."""
    parts = re.findall(r"\d+|\D+", path.name)
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in parts)


def _read_tensor(path: Path) -> npt.NDArray[Any]:
    with reading(path, "serialized tensor"):
        tensor = onnx.TensorProto.FromString(path.read_bytes())
        return as_array(onnx.numpy_helper.to_array(tensor), str(path))
