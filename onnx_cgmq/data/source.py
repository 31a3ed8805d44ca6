"""Opens any data that a user has as checked samples."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnx_cgmq.data import readers
from onnx_cgmq.data.checks import check_inputs, check_labels, one_sample
from onnx_cgmq.data.files import FileStore, Loaded
from onnx_cgmq.data.objects import import_object, is_object_path
from onnx_cgmq.data.samples import ArrayStore, Batch, Samples, Store
from onnx_cgmq.data.specs import InputSpec, class_count, fixed_batch, input_specs, output_names
from onnx_cgmq.data.user_code import user_code
from onnx_cgmq.errors import DataError

__all__ = ["Batch", "Samples", "open_data"]


def open_data(data: Any, model: ir.Model) -> Samples:
    """Opens and checks data for a model.

    Args:
        data: Samples, which are returned as they are; or one of

            * the path of an ``.npz`` file: arrays named like the inputs, ``label`` optional;
            * a folder of such files, streamed in sorted order;
            * an ONNX ``test_data_set_*`` folder, or a folder of them;
            * ``"package.module:factory"``, or a callable, which may return any of these;
            * an onnxruntime ``CalibrationDataReader``;
            * a torch ``DataLoader`` or another iterable of batches: dicts, ``(x, y)`` or ``x``;
            * a dict of arrays (``label`` optional), ``(dict, labels)``, and, for a model with one
              input, ``(x, labels)`` or ``x``.

            An array named like an output holds the target values of that output.
        model: The model that the data is for.

    Returns:
        The samples, in the types of the model's inputs. Arrays in memory are not copied if their
        type already fits.

    Raises:
        DataError: The data can't be read, is empty, or does not fit the model.
        ModelError: The model has an input that data can't be fed to.
    """
    if isinstance(data, Samples):
        return data
    specs = input_specs(model)
    wanted = _Wanted(specs, output_names(model), class_count(model))
    store = _open(data, wanted, from_factory=False)
    unbatched = frozenset(spec.name for spec in specs if not spec.batched)
    return Samples.of(store, fixed_batch(specs), wanted.outputs, unbatched)


@dataclass(frozen=True)
class _Wanted:
    """What the data for a model must and may have.

    Attributes:
        specs: The inputs that it must have.
        outputs: The outputs for which it may have target values.
        classes: Number of classes, which its labels must be below; ``None`` if it is not known.
    """

    specs: tuple[InputSpec, ...]
    outputs: tuple[str, ...]
    classes: int | None

    @property
    def names(self) -> list[str]:
        return [spec.name for spec in self.specs]


def _open(data: Any, wanted: _Wanted, *, from_factory: bool) -> Store:
    names = wanted.names
    where = f"data ({type(data).__name__})"
    lift = partial(one_sample, specs=wanted.specs)
    name = _name(data)
    if isinstance(data, str) and is_object_path(data) and not os.path.exists(data):
        data = import_object(data)
    if isinstance(data, (str, os.PathLike)):
        return _open_path(Path(data), wanted)
    if hasattr(data, "get_next"):
        items = readers.read_items(readers.calibration_batches(data), names, where, lift)
    elif isinstance(data, (Mapping, tuple)) or hasattr(data, "__array__"):
        items = [readers.as_item(data, names, where)]
    elif isinstance(data, Iterable):
        items = readers.read_items(data, names, where, lift)
    elif callable(data) and not from_factory:
        with user_code(f"the data factory {name}", DataError):
            made = data()
        return _open(made, wanted, from_factory=True)
    else:
        raise DataError(
            f"{where}: this kind of data can't be read; give an .npz file, a folder, a dict of "
            f"arrays named {names}, a reader, or package.module:factory"
        )
    checked = [_check(item, wanted, where) for item in items]
    if len(checked) > 1:  # samples of several lengths, each length in one item
        return FileStore(
            [Path(str(number)) for number in range(len(checked))],
            lambda path: checked[int(path.name)],
        )
    return ArrayStore(checked[0].inputs, checked[0].labels)


def _name(data: Any) -> str:
    """What messages call a factory: its path if it is given by one, else its own name."""
    return data if isinstance(data, str) else getattr(data, "__qualname__", type(data).__name__)


def _open_path(path: Path, wanted: _Wanted) -> Store:
    def load(read: Callable[[Path, list[str]], readers.Item], file: Path) -> Loaded:
        return _check(read(file, wanted.names), wanted, str(file))

    if not os.path.isdir(path):  # false too where no file can have the name
        loaded = load(readers.read_npz, path)
        return ArrayStore(loaded.inputs, loaded.labels)
    archives = sorted(path.glob("*.npz"), key=readers.natural)
    sets = (
        [path]
        if any(path.glob("input_*.pb"))
        else sorted(
            (entry for entry in path.glob("test_data_set_*") if entry.is_dir()), key=readers.natural
        )
    )
    if archives and sets:
        raise DataError(
            f"{path}: this folder has both .npz files and ONNX test data; give a folder with one "
            "kind"
        )
    if archives:
        return FileStore(archives, partial(load, readers.read_npz))
    if sets:
        return FileStore(sets, partial(load, readers.read_test_data_set))
    raise DataError(
        f"{path}: this folder has no data: no .npz files, no test_data_set_* folders and no "
        "input_0.pb"
    )


def _check(item: readers.Item, wanted: _Wanted, where: str) -> Loaded:
    arrays, labels = item
    inputs = check_inputs(arrays, wanted.specs, where, wanted.outputs)
    count = len(next(iter(inputs.values())))
    if labels is None:
        return Loaded(inputs, None)
    return Loaded(inputs, check_labels(labels, count, wanted.classes, where))
