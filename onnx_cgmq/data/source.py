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
from onnx_cgmq.data.data_files import DataFiles
from onnx_cgmq.data.objects import import_object, is_object_path
from onnx_cgmq.data.paths import Opened, in_memory, open_files
from onnx_cgmq.data.samples import Batch, Samples
from onnx_cgmq.data.specs import class_count, fixed_batch, input_specs, output_names
from onnx_cgmq.data.user_code import user_code
from onnx_cgmq.data.wanted import Wanted
from onnx_cgmq.errors import DataError

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
            * :class:`~onnx_cgmq.data.data_files.DataFiles`: images, sounds or lines of text, with
              what they do not say themselves;
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
    lift = partial(one_sample, specs=wanted.specs)
    name = _name(data)
    if isinstance(data, str) and is_object_path(data) and not os.path.exists(data):
        data = import_object(data)
    if isinstance(data, (str, os.PathLike)):
        return open_files(DataFiles(data), wanted)
    if isinstance(data, DataFiles):
        return open_files(data, wanted)
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
    return Opened(in_memory([wanted.checked(item, where) for item in items]))


def _name(data: Any) -> str:
    """What messages call a factory: its path if it is given by one, else its own name."""
    return data if isinstance(data, str) else getattr(data, "__qualname__", type(data).__name__)
