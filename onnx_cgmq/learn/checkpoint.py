"""Saves the state of a run, so that a killed run can go on where its last epoch ended."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import torch

from onnx_cgmq.contract.replace import replaced
from onnx_cgmq.errors import ConfigError, OutputError, one_line
from onnx_cgmq.learn.fingerprint import Fingerprint, differences

_VERSION = 6


class Checkpoint:
    """The file that holds the state of a run.

    It is replaced atomically. A fingerprint says which run it belongs to, and a digest whether the
    state is what was saved.

    Attributes:
        path: The file.
    """

    def __init__(self, path: str | os.PathLike[str], fingerprint: Fingerprint) -> None:
        """Names the file, and the fingerprint that a run must have to go on from it."""
        self.path = Path(path)
        self._fingerprint = fingerprint

    def save(self, state: dict[str, Any]) -> None:
        """Writes a state; the old file stays until the new one is complete.

        Raises:
            OutputError: The file can't be written.
        """
        content = {
            "version": _VERSION,
            "fingerprint": self._fingerprint,
            "digest": _digest(state),
            "state": state,
        }
        try:
            with replaced(self.path) as part:
                torch.save(content, part)
        except (OutputError, RuntimeError) as error:  # torch's own error for a full disk
            raise OutputError(
                f"can't write the checkpoint {self.path}: {one_line(error)}"
            ) from error

    def load(self) -> dict[str, Any] | None:
        """Returns the saved state, or ``None`` if there is no file.

        Raises:
            ConfigError: The file is damaged, or belongs to another run.
        """
        if not self.path.exists():
            return None
        content = self._read()
        differing = self._differences(content)
        if differing:
            raise ConfigError(
                f"the checkpoint {self.path} belongs to a run that differs in its "
                f"{_listing(differing)}; give the same to resume, or delete it to start anew"
            )
        try:
            state: dict[str, Any] = content["state"]
            whole = content["digest"] == _digest(state)
        except Exception as error:  # of the kind that the damage makes it
            raise self.damaged(error) from error
        if not whole:
            raise self.damaged(ValueError())
        return state

    def note_on_earlier(self) -> str | None:
        """Returns a note on the file if there is one, for a run that does not go on from it.

        Raises:
            OutputError: The file is something else, which the run must not overwrite.
        """
        if not self.path.exists():
            return None
        try:
            differing = self._differences(self._read(mapped=True))
        except ConfigError as error:
            raise OutputError(
                f"{self.path} is needed for the checkpoint of this run, but the file there is not "
                "a whole checkpoint of onnx-cgmq; move or delete it, or give the output another "
                "name"
            ) from error
        if differing:
            return (
                f"{self.path} is the checkpoint of a run that differs in its "
                f"{_listing(differing)}; this run overwrites it after its first epoch"
            )
        return (
            f"{self.path} is the checkpoint of an earlier run with the same settings, which "
            "--resume (resume=True) goes on from; this run overwrites it after its first epoch"
        )

    def damaged(self, error: Exception) -> ConfigError:
        """Makes the error that refuses the file.

        Args:
            error: How the damage was found.
        """
        return ConfigError(
            f"the checkpoint {self.path} is damaged: it can't be read ({type(error).__name__}); "
            "delete it to start anew"
        )

    def remove(self) -> None:
        """Deletes the file, if it exists."""
        self.path.unlink(missing_ok=True)

    def _read(self, *, mapped: bool = False) -> dict[str, Any]:
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True, mmap=mapped)
            if not isinstance(content, dict) or not isinstance(content["version"], int):
                raise TypeError
            content["fingerprint"]
        except Exception as error:  # torch raises many kinds of errors for a damaged file
            raise self.damaged(error) from error
        read: dict[str, Any] = content
        return read

    def _differences(self, content: dict[str, Any]) -> list[str]:
        found = content["fingerprint"]
        if content["version"] != _VERSION:
            return ["version of onnx-cgmq"]
        if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
            raise self.damaged(TypeError())
        return differences(self._fingerprint, found)


def _listing(names: list[str]) -> str:
    *most, last = map(str, names)
    return f"{', '.join(most)} and {last}" if most else last


def _digest(state: Any) -> str:
    """A digest of numbers, texts and tensors in dicts and lists."""
    digest = hashlib.blake2b()
    _add(digest, state)
    return digest.hexdigest()


def _add(digest: hashlib.blake2b, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ValueError("a tensor with more elements than are stored")
        digest.update(f"{value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    elif isinstance(value, dict):
        digest.update(f"dict {len(value)} ".encode())
        for key, item in value.items():
            digest.update(f"{key!r} ".encode())
            _add(digest, item)
    elif isinstance(value, (list, tuple)):
        digest.update(f"list {len(value)} ".encode())
        for item in value:
            _add(digest, item)
    elif value is None or isinstance(value, (bool, int, float, str)):
        digest.update(f"{value!r} ".encode())
    else:
        raise TypeError(f"a checkpoint has no {type(value).__name__}")
