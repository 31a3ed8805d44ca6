"""Labels of files that hold a sample each: from the names of folders, or from a table."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from onnx_cgmq.data.hints import CLASS_NAMES
from onnx_cgmq.data.reading import reading
from onnx_cgmq.errors import DataError

_SHOWN = 10  # classes that a note shows


def folder_labels(
    files: Sequence[Path], root: Path, classes: int | None
) -> tuple[dict[Path, int], str]:
    """Takes the names of the folders in ``root`` as classes.

    Names that are numbers are class indexes. Other names are classes in sorted order, which is
    what torchvision's ``ImageFolder`` makes of them; there must then be one for each class of the
    model.

    Args:
        files: The files, somewhere in ``root``.
        root: The folder with a folder for each class.
        classes: Number of classes of the model, or ``None`` if it does not say.

    Returns:
        The label of each file, and a note on what the classes are.

    Raises:
        DataError: A file is in no folder, or the order of the folders does not say which class is
            which.
    """
    where = f"{root}: --labels folders"
    outside = [file for file in files if file.parent == root]
    if outside:
        raise DataError(
            f"{where}: {outside[0].name} is in no folder of a class; move it into one, or give "
            "--labels FILE.csv"
        )
    folder_of = {file: file.relative_to(root).parts[0] for file in files}
    names = sorted(set(folder_of.values()))
    indexes = {name: rank for rank, name in enumerate(names)}
    all_there = classes is None or len(names) == classes
    if all(name.isdecimal() for name in names):
        numbers = {name: int(name) for name in names}
        if all_there and numbers != indexes:
            raise DataError(
                f"{where}: the names are numbers, but in sorted order, {names[:_SHOWN]}, they are "
                "not 0, 1, 2, ..., so it is open which of both counts; give --labels FILE.csv"
            )
        indexes = numbers
    elif not all_there:
        raise DataError(
            f"{where}: {len(names)} folders for the {classes} classes of the model, so their order "
            "does not say which classes they are; give --labels FILE.csv, or name folders by the "
            "class index"
        )
    shown = ", ".join(f"{indexes[name]} = {name!r}" for name in names[:_SHOWN])
    note = f"labels are the names of folders: {shown}{', ...' if len(names) > _SHOWN else ''}"
    return {file: indexes[name] for file, name in folder_of.items()}, note


def table_labels(files: Sequence[Path], root: Path, table: Path) -> tuple[dict[Path, int], str]:
    """Looks up the labels of files in a CSV file, whose rows are a name and a class index.

    Args:
        files: The files, somewhere in ``root``.
        root: The folder that names in the table begin from; a name without a folder will do, if
            only one file has it.
        table: The CSV file; its first row may have the names of the columns.

    Returns:
        The label of each file, and a note on where labels come from.

    Raises:
        DataError: The table can't be read, or has no label for a file.
    """
    rows = _rows(table)
    counts = Counter(file.name for file in files)
    found = {}
    for file in files:
        names = [file.relative_to(root).as_posix()]
        if counts[file.name] == 1:
            names.append(file.name)
        labels = {rows[name] for name in names if name in rows}
        if len(labels) != 1:
            raise DataError(
                f"{table}: {'no label' if not labels else 'two labels'} for {names[0]}; give one "
                "row for each file, with its path from the folder"
            )
        (found[file],) = labels
    return found, f"labels are from {table}"


def _rows(table: Path) -> Mapping[str, int]:
    what = "CSV file of labels"
    with reading(table, what), table.open(newline="", encoding="utf-8-sig") as file:
        lines = [(number, row) for number, row in enumerate(csv.reader(file), 1) if row]
    found: dict[str, int] = {}
    for place, (number, row) in enumerate(lines):
        if len(row) != 2:
            raise DataError(f"{table}, line {number}: {len(row)} values, wanted two: name,label")
        name, label = row[0].strip().removeprefix("./"), row[1].strip()
        if not label.isdecimal():
            if place == 0:  # the names of the columns
                continue
            raise DataError(f"{table}, line {number}: label {label!r}; {CLASS_NAMES}")
        if found.setdefault(name, int(label)) != int(label):
            raise DataError(
                f"{table}, line {number}: {name} has the label {found[name]} in a line before; "
                "leave one of them"
            )
    return found
