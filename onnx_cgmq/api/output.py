"""Checks output files before training, and writes them atomically afterwards."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from onnx_cgmq.errors import OutputError


def check_writable(path: Path, needed_bytes: int) -> None:
    """Checks that a file can be written, so that a run does not fail after training.

    Args:
        path: The file to be written.
        needed_bytes: The free space that is needed.

    Raises:
        OutputError: The folder is missing or not writable, its disk is too full, or a folder has
            the file's name.
    """
    folder = path.parent
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give the name of a file to write")
    if not folder.is_dir():
        raise OutputError(f"folder {folder} of the output does not exist; create it first")
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".onnx-cgmq-"):
            pass
    except OSError as error:
        raise OutputError(
            f"can't write to {folder}: {error.strerror or error}; write to another folder"
        ) from error
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise OutputError(
            f"{folder} has {free:,} bytes free, but about {needed_bytes:,} are needed; "
            "free some space or write elsewhere"
        )


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically.

    Raises:
        OutputError: The file can't be written. An older file of that name stays as it was.
    """
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(
            f"can't write {path}: {error.strerror or error}; check its folder and free space"
        ) from error
