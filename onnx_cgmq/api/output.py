"""The files that a run writes: named in one place, and checked before training."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from onnx_cgmq.contract.replace import PART_PREFIX, regular_file
from onnx_cgmq.contract.run_paths import checkpoint_path, plan_path
from onnx_cgmq.data.objects import is_object_path
from onnx_cgmq.data.paths import source_files
from onnx_cgmq.errors import OutputError
from onnx_cgmq.graph.files.load import external_data_path
from onnx_cgmq.settings.data_files import DataFiles

_SMALL = 1 << 20
"""Bytes that are needed beside those of the model: the plan, the log."""


@dataclass(frozen=True)
class OutputFiles:
    """The files that a run, or :meth:`~onnx_cgmq.api.result.Result.save`, writes.

    Attributes:
        model: The quantized model; a large one has external data beside it.
        plan: Its plan.
        checkpoint: What a run that was stopped goes on from.
        log: Progress as JSON lines.
        report: The HTML report.
    """

    model: Path | None = None
    plan: Path | None = None
    checkpoint: Path | None = None
    log: Path | None = None
    report: Path | None = None

    @classmethod
    def of_run(
        cls,
        output: str | os.PathLike[str] | None,
        log: str | os.PathLike[str] | None,
        report: Path | None = None,
    ) -> OutputFiles:
        """Returns the files of a run, by the paths that the user gives."""
        log_path = None if log is None else Path(log)
        if output is None:
            return cls(log=log_path, report=report)
        model = Path(output)
        return cls(model, plan_path(model), checkpoint_path(model), log_path, report)

    @classmethod
    def of_result(cls, path: str | os.PathLike[str]) -> OutputFiles:
        """Returns the files of a result that is saved."""
        return cls(Path(path), plan_path(Path(path)))

    def check(self, read: Mapping[str, Iterable[Path]]) -> None:
        """Refuses files that can't be written, or that would overwrite each other or a source.

        Args:
            read: What the run reads: files by what they are ("the float model").

        Raises:
            OutputError: A name is that of a folder, device, FIFO or socket, is too long, or is in a
                folder that is missing or not writable; or two names are of one file.
        """
        for path in self._written().values():
            _check_writable(path)
        self.check_apart(read)

    def check_apart(self, read: Mapping[str, Iterable[Path]]) -> None:
        """Refuses files that would overwrite each other or a source, as :meth:`check` does."""
        written = self._written()
        for (one, path), (other, other_path) in combinations(written.items(), 2):
            if _same(path, other_path):
                raise OutputError(
                    f"{other} {other_path} is {one} itself; choose another name for one of them"
                )
        for source, paths in read.items():
            for source_path in paths:
                for name, path in written.items():
                    if _same(path, source_path):
                        raise OutputError(
                            f"{name} {path} is {source} itself; write to another file"
                        )

    def check_space(self, float_bytes: int) -> None:
        """Finds a full disk before training, not after.

        Args:
            float_bytes: Size of the float model's weights.

        Raises:
            OutputError: A disk has too little free space.
        """
        # The model is at most as large as the float one; a checkpoint has the weights, Adam's two
        # moments, and the best weights so far.
        large = (self.model, self.checkpoint)
        for path in self._written().values():
            folder = regular_file(path).parent
            needed = _SMALL + (6 * float_bytes if path in large else 0)
            free = shutil.disk_usage(folder).free
            if free < needed:
                raise OutputError(
                    f"{folder} has {free:,} bytes free, but about {needed:,} are needed; "
                    "free some space or write elsewhere"
                )

    def _written(self) -> dict[str, Path]:
        """Returns all files by what they are."""
        model = None if self.model is None else regular_file(self.model)
        named = {
            "the output": self.model,
            "its external data": None if model is None else external_data_path(model),
            "its plan": self.plan,
            "its checkpoint": self.checkpoint,
            "the log": self.log,
            "the report": self.report,
        }
        return {name: path for name, path in named.items() if path is not None}


def data_files(data: Any) -> list[Path]:
    """Returns the files that data is read from, if it is given by a path."""
    if isinstance(data, DataFiles):
        given = (data.labels_file, data.tokenizer)
        return [*source_files(Path(data.path)), *(Path(file) for file in given if file is not None)]
    if not isinstance(data, (str, os.PathLike)):
        return []
    if isinstance(data, str) and is_object_path(data) and not os.path.exists(data):
        return []
    return source_files(Path(data))


def _check_writable(path: Path) -> None:
    folder = regular_file(path).parent
    if not folder.is_dir():
        raise OutputError(f"folder {folder} of the output does not exist; create it first")
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=PART_PREFIX):
            pass
    except OSError as error:
        raise OutputError(
            f"can't write to {folder}: {error.strerror or error}; write to another folder"
        ) from error


def _same(one: Path, other: Path) -> bool:
    """Says whether two paths are of one file: by links too, and before the file is there."""
    try:
        return os.path.samefile(one, other)
    except ValueError:  # no file can have the name
        return False
    except OSError:  # one of them is not there yet
        real, other_real = Path(os.path.realpath(one)), Path(os.path.realpath(other))
    if real == other_real:
        return True
    alike = str(real).casefold() == str(other_real).casefold()
    return alike and _ignores_case(real.parent)


def _ignores_case(folder: Path) -> bool:
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f"{PART_PREFIX}case-") as file:
            return (folder / Path(file.name).name.upper()).exists()
    except OSError:  # nothing can be written there anyway
        return False
