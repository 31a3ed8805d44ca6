"""Opens any data that a user has as checked samples."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import onnx_ir as ir

from onnx_cgmq.data import readers
from onnx_cgmq.data.checks import one_sample
from onnx_cgmq.data.objects import import_object, is_object_path
from onnx_cgmq.data.paths import Opened, open_files
from onnx_cgmq.data.samples import ArrayStore, Batch, Samples, Store
from onnx_cgmq.data.specs import class_count, fixed_batch, input_specs, output_names
from onnx_cgmq.data.streams import LoaderStore, can_be_read_anew, collected
from onnx_cgmq.data.user_code import user_code
from onnx_cgmq.data.wanted import Wanted
from onnx_cgmq.errors import DataError
from onnx_cgmq.settings.data_files import DataFiles

__all__ = ["Batch", "Samples", "open_data"]


def open_data(data: Any, model: ir.Model) -> Samples:
    """Opens and checks data for a model.

    Args:
        data: Samples, which are returned as they are; or one of

            * the path of an ``.npz`` file: arrays named like the inputs, ``label`` optional;
            * a folder of such files, streamed in sorted order;
            * the same with ``.npy`` files, for a model with one input;
            * an ONNX ``test_data_set_*`` folder, or a folder of them;
            * a CSV or Parquet file of features, ``label`` optional;
            * :class:`~onnx_cgmq.settings.data_files.DataFiles`: images, sounds or lines of text,
              with what they do not say themselves;
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
    wanted = Wanted(specs, output_names(model), class_count(model))
    opened = _open(data, wanted, from_factory=False)
    unbatched = frozenset(spec.name for spec in specs if not spec.batched)
    samples = Samples.of(opened.store, fixed_batch(specs), wanted.outputs, unbatched)
    return replace(samples, notes=opened.notes)


def _open(data: Any, wanted: Wanted, *, from_factory: bool) -> Opened:
    names = wanted.names
    where = f"data ({type(data).__name__})"
    name = _name(data)
    if isinstance(data, str) and is_object_path(data) and not os.path.exists(data):
        data = import_object(data)
    if isinstance(data, (str, os.PathLike)):
        return open_files(DataFiles(data), wanted)
    if isinstance(data, DataFiles):
        return open_files(data, wanted)
    if hasattr(data, "get_next"):
        data = readers.calibration_batches(data)
    if isinstance(data, (Mapping, tuple)) or hasattr(data, "__array__"):
        item = wanted.checked(readers.as_item(data, names, where), where)
        return Opened(ArrayStore(item.inputs, item.labels))
    if isinstance(data, Iterable):
        return Opened(_open_batches(data, wanted, where))
    if callable(data) and not from_factory:
        with user_code(f"the data factory {name}", DataError):
            made = data()
        return _open(made, wanted, from_factory=True)
    raise DataError(
        f"{where}: this kind of data can't be read; give an .npz file, a folder, a dict of arrays "
        f"named {names}, a reader, or package.module:factory"
    )


def _open_batches(data: Iterable[Any], wanted: Wanted, where: str) -> Store:
    lift = partial(one_sample, specs=wanted.specs)

    def read() -> Store:
        items = readers.read_items(data, wanted.names, where, lift)
        numbered = enumerate(items, 1)
        return collected(wanted.checked(item, f"{where}, batch {n}") for n, item in numbered)

    store = read()
    if store.forms is None and can_be_read_anew(data):
        return LoaderStore(store, read, where)
    return store


def _name(data: Any) -> str:
    """What messages call a factory: its path if it is given by one, else its own name."""
    return data if isinstance(data, str) else getattr(data, "__qualname__", type(data).__name__)
