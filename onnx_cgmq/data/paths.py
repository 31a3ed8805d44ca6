"""Opens files and folders: finds out what they hold, and reads it by its kind."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from onnx_cgmq.data import images, readers, sounds, tables, texts
from onnx_cgmq.data.files import FileStore, Loaded
from onnx_cgmq.data.images import ImageReader
from onnx_cgmq.data.labels import folder_labels, table_labels
from onnx_cgmq.data.samples import ArrayStore, Store
from onnx_cgmq.data.sounds import SoundReader
from onnx_cgmq.data.streams import collected
from onnx_cgmq.data.wanted import Wanted
from onnx_cgmq.errors import DataError
from onnx_cgmq.settings.data_files import FOLDERS, DataFiles
from onnx_cgmq.settings.image_options import ImageOptions

_SINGLE: Final = images.SUFFIXES | sounds.SUFFIXES
"""How names of files end that hold one sample each."""


class Opened(NamedTuple):
    """Opened data.

    Attributes:
        store: The samples.
        notes: Sentences on how they were read, which the user should see.
    """

    store: Store
    notes: tuple[str, ...] = ()


def open_files(files: DataFiles, wanted: Wanted) -> Opened:
    """Opens a file or folder.

    Raises:
        DataError: It can't be read, holds nothing that is data, or does not fit the model.
    """
    path = Path(files.path)
    if os.path.isdir(path):  # false too where no file can have the name
        return _open_folder(files, path, wanted)
    suffix = path.suffix.lower()
    if suffix in _SINGLE:
        return _open_singles(files, path, [path], wanted)
    if suffix == texts.SUFFIX or files.tokenizer is not None:
        return _open_text(files, path, wanted)
    if suffix in tables.SUFFIXES:
        files.refuse_unused("a table")
        return _one_item(tables.read_table(path, wanted.specs, wanted.outputs), path, wanted)
    files.refuse_unused("a file of arrays")
    return _one_item(readers.read_npz(path, wanted.names), path, wanted)


def _one_item(item: readers.Item, path: Path, wanted: Wanted) -> Opened:
    """Opens the content of a file, all of which is in memory."""
    inputs, labels = wanted.checked(item, str(path))
    return Opened(ArrayStore(inputs, labels))


def source_files(path: Path) -> list[Path]:
    """The files that data is read from."""
    if not os.path.isdir(path):
        return [path]
    arrays = [file for pattern in _ARRAYS for file in path.glob(pattern)]
    return arrays or _found(path)[0]


_ARRAYS: Final = ("*.npz", "*.npy", "*.pb", "test_data_set_*/*.pb")
"""Files of arrays in a folder."""


def _open_folder(files: DataFiles, path: Path, wanted: Wanted) -> Opened:
    def load(read: Callable[[Path, list[str]], readers.Item], file: Path) -> Loaded:
        return wanted.checked(read(file, wanted.names), str(file))

    arrays = sorted(path.glob("*.npz"), key=readers.natural)
    sets = (
        [path]
        if any(path.glob("input_*.pb"))
        else sorted(
            (entry for entry in path.glob("test_data_set_*") if entry.is_dir()), key=readers.natural
        )
    )
    if arrays and sets:
        raise DataError(
            f"{path}: this folder has both .npz files and ONNX test data; give a folder with one "
            "kind"
        )
    arrays = arrays or sorted(path.glob("*.npy"), key=readers.natural)
    if arrays or sets:
        files.refuse_unused("a folder of arrays")
        read = readers.read_test_data_set if sets else readers.read_npz
        return Opened(FileStore(sets or arrays, partial(load, read)))
    singles, others = _found(path)
    if not singles:
        raise DataError(
            f"{path}: this folder has no data: no .npz files, no .npy files, no test_data_set_* "
            "folders, no input_0.pb, and no images or sounds in it or its folders"
        )
    store, notes = _open_singles(files, path, singles, wanted)
    if others:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(others.items()))
        notes = (*notes, f"{path}: files of other kinds are left out: {kinds}")
    return Opened(store, notes)


def _open_singles(files: DataFiles, path: Path, found: Sequence[Path], wanted: Wanted) -> Opened:
    """Opens images or sounds, which are read when they are needed."""
    of_images = [file.suffix.lower() in images.SUFFIXES for file in found]
    if any(of_images) and not all(of_images):
        raise DataError(f"{path}: this folder has images and sounds; give a folder with one kind")
    reader: ImageReader | SoundReader
    if any(of_images):
        files.refuse_unused("images", "images", "labels")
        reader = ImageReader.of(wanted.specs, files.images or ImageOptions(), str(path))
    else:
        files.refuse_unused("sounds", "labels", "rate")
        reader = SoundReader.of(wanted.specs, files.rate, str(path))
    labels, label_note = _labels(files, path, found, wanted.classes)
    (name,) = wanted.names

    def load(file: Path) -> Loaded:
        label = None if labels is None else np.array([labels[file]])
        return wanted.checked(({name: reader.read(file)}, label), str(file))

    store = FileStore(found, load)
    return Opened(store, tuple(filter(None, (reader.note, label_note, store.note))))


def _labels(
    files: DataFiles, path: Path, found: Sequence[Path], classes: int | None
) -> tuple[dict[Path, int] | None, str]:
    """The labels of files, and a note; there are none unless the user asks for them."""
    if files.labels is None:
        return None, ""
    root = path if os.path.isdir(path) else path.parent
    if files.labels == FOLDERS:
        return folder_labels(found, root, classes)
    return table_labels(found, root, Path(files.labels))


def _open_text(files: DataFiles, path: Path, wanted: Wanted) -> Opened:
    files.refuse_unused("lines of text", "tokenizer", "length")
    if files.tokenizer is None:
        raise DataError(
            f"{path}: lines of text need the tokenizer of the model; give --tokenizer "
            "tokenizer.json (DataFiles in Python)"
        )
    items, note = texts.read_lines(path, Path(files.tokenizer), wanted.specs, files.length)
    return Opened(collected(wanted.checked(item, str(path)) for item in items), (note,))


def _found(folder: Path) -> tuple[list[Path], Counter[str]]:
    """Images and sounds in a folder and its folders, sorted; and how many others, by suffix.

    Hidden files and folders are passed over. Links to folders are followed once.
    """
    files: list[Path] = []
    others: Counter[str] = Counter()
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else [name for name in folders if name[0] != "."]
        if real in seen:
            continue
        seen.add(real)
        for name in names:
            file = Path(place, name)
            if name[0] == ".":
                continue
            if file.suffix.lower() in _SINGLE:
                files.append(file)
            else:
                others[file.suffix.lower() or "without a suffix"] += 1
    return sorted(files, key=lambda file: [readers.natural(Path(p)) for p in file.parts]), others
