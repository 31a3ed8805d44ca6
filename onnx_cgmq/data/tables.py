"""Tables of features: CSV and Parquet, a sample in each row."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from onnx_cgmq.data.checks import LABEL
from onnx_cgmq.data.extras import extra_package
from onnx_cgmq.data.readers import Item
from onnx_cgmq.data.reading import reading
from onnx_cgmq.data.specs import InputSpec
from onnx_cgmq.errors import DataError

SUFFIXES: Final = frozenset({".csv", ".parquet"})
"""How names of tables end, in lower case."""

_DELIMITERS: Final = ",;\t"

_LARGEST: Final = 1 << 53
"""Up to this a float holds every whole number."""

Columns = Mapping[str, npt.NDArray[Any]]
"""Values by the name of a column, in the order of the table."""


def read_table(path: Path, specs: Sequence[InputSpec], outputs: Sequence[str]) -> Item:
    """Reads a table as the inputs of a model, and ``label`` if there is such a column.

    For a model with several inputs a column is named like its input. For one with one input all
    columns in their order are the features, or one column of lists with its name has them.

    Args:
        path: The file.
        specs: The inputs of the model.
        outputs: Names of its outputs, which no column may have.

    Raises:
        DataError: The table can't be read, or its columns are not what the model takes.
    """
    read = _read_csv if path.suffix.lower() == ".csv" else _read_parquet
    columns = dict(read(path))
    if not columns or not len(next(iter(columns.values()))):
        raise DataError(f"{path}: the table has no rows; give at least one")
    names = {spec.name for spec in specs}
    target = next((name for name in outputs if name in columns and name not in names), None)
    if target is not None:
        raise DataError(
            f"{path}: the column {target!r} has the name of an output; give target values in an "
            f".npz file, and class indexes as {LABEL!r}"
        )
    labels = None
    if LABEL in columns and LABEL not in names:
        labels = _whole(columns.pop(LABEL), f"{path}: column {LABEL!r}")
    (first, *others) = specs
    if not others and (first.name not in columns or columns[first.name].ndim == 1):
        return {first.name: _features(columns, first, path)}, labels
    arrays = dict(columns)  # the checks that follow name a column that nothing reads
    for spec in specs:
        if spec.name not in columns:
            continue  # they name this, too
        column = _typed(columns[spec.name], spec, f"{path}: column {spec.name!r}")
        wide = column.ndim == 1 and len(spec.sample_axes or ()) == 2
        arrays[spec.name] = column[:, None] if wide else column
    return arrays, labels


def _features(columns: Columns, spec: InputSpec, path: Path) -> npt.NDArray[Any]:
    """Puts all columns beside each other."""
    lists = next((name for name, column in columns.items() if column.ndim > 1), None)
    if lists is not None:
        raise DataError(
            f"{path}: the column of lists {lists!r} must have the name of the input, {spec.name!r}"
        )
    axes = spec.sample_axes or ()
    if len(axes) == 2 and isinstance(axes[1], int) and axes[1] != len(columns):
        raise DataError(
            f"{path}: {len(columns)} columns, {', '.join(list(columns)[:10])}, but input {spec} "
            f"takes {axes[1]} features; leave out those that are none (labels are in {LABEL!r})"
        )
    return np.stack(
        [_typed(column, spec, f"{path}: column {name!r}") for name, column in columns.items()], 1
    )


def _typed(column: npt.NDArray[Any], spec: InputSpec, where: str) -> npt.NDArray[Any]:
    """Whole numbers become floats where the input takes floats; a table does not tell them."""
    if spec.dtype.kind in "iu":
        return _whole(column, where)
    if column.dtype.kind in "iu" and spec.dtype.kind != "b":
        return column.astype(np.float64)
    return column


def _whole(column: npt.NDArray[Any], where: str) -> npt.NDArray[Any]:
    """Makes integers of numbers that are whole, whose type a table does not tell."""
    if column.dtype.kind != "f" or not np.isfinite(column).all():
        return column  # which the checks of types and values refuse, where it does not fit
    wrong = (column != np.rint(column)) | (np.abs(column) > _LARGEST)
    if wrong.any():
        raise DataError(
            f"{where}: {column[wrong][0]} is no whole number, or too large for one; write whole "
            "numbers"
        )
    return column.astype(np.int64)


def _read_csv(path: Path) -> Columns:
    with reading(path, "CSV file"), path.open(newline="", encoding="utf-8-sig") as file:
        head = file.readline()
        file.seek(0)
        delimiter = next((sign for sign in _DELIMITERS if sign in head), ",")
        reader = csv.reader(file, delimiter=delimiter)
        rows = [(reader.line_num, row) for row in reader if row]
    if not rows:
        return {}
    names = [name.strip() for name in rows[0][1]]
    if all(_is_number(name) for name in names):
        raise DataError(f"{path}: the first row has numbers; it must have the names of the columns")
    if "" in names or len(set(names)) < len(names):
        raise DataError(
            f"{path}: the first row {names[:10]} has a column without a name (an index, perhaps), "
            "or the same name twice; leave out the column, or name it"
        )
    values = np.empty((len(rows) - 1, len(names)))
    for place, (line, row) in enumerate(rows[1:]):
        if len(row) != len(names):
            raise DataError(
                f"{path}, line {line}: {len(row)} values for {len(names)} columns; repair the line"
            )
        try:
            values[place] = row
        except ValueError as error:
            name, value = next(
                pair for pair in zip(names, row, strict=True) if not _is_number(pair[1])
            )
            raise DataError(
                f"{path}, line {line}: {value!r} in column {name!r} is no number; leave out the "
                "row or the column, or write numbers"
            ) from error
    return {name: values[:, place] for place, name in enumerate(names)}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_parquet(path: Path) -> Columns:
    parquet = extra_package("pyarrow.parquet", "tables", str(path))
    with reading(path, "Parquet file"):
        table = parquet.read_table(path)
    return {name: _column(table.column(name), name, path) for name in table.column_names}


def _column(column: Any, name: str, path: Path) -> npt.NDArray[Any]:
    """Makes an array of a column of numbers, or of lists of equal length."""
    array = np.asarray(column.to_numpy())
    if array.dtype.kind == "O":
        with suppress(ValueError):  # lists of several lengths
            array = np.array(column.to_pylist())
    if column.null_count or array.dtype.kind not in "biuf":
        raise DataError(
            f"{path}: column {name!r} ({column.type}, {column.null_count} missing) is not of "
            "numbers, or lists of equally many; leave out the column, or what is missing"
        )
    return array
