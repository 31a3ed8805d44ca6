"""Saves the state of a run, so that a killed run can go on where its last epoch ended."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch

from onnx_cgmq.errors import ConfigError, OutputError
from onnx_cgmq.settings.config import Config

_VERSION = 3


class Checkpoint:
    """The file that holds the state of a run.

    It is replaced atomically. A fingerprint says which run it belongs to.

    Attributes:
        path: The file.
    """

    def __init__(self, path: str | os.PathLike[str], fingerprint: str) -> None:
        """Names the file, and the fingerprint that a run must have to go on from it."""
        self.path = Path(path)
        self._fingerprint = fingerprint

    def save(self, state: dict[str, Any]) -> None:
        """Writes a state; the old file stays until the new one is complete.

        Raises:
            OutputError: The file can't be written.
        """
        part = self.path.with_name(self.path.name + ".part")
        try:
            content = {"version": _VERSION, "fingerprint": self._fingerprint, "state": state}
            torch.save(content, part)
            os.replace(part, self.path)
        except BaseException as error:
            part.unlink(missing_ok=True)
            if not isinstance(error, (OSError, RuntimeError)):
                raise  # most likely a KeyboardInterrupt
            raise OutputError(f"can't write the checkpoint {self.path}: {error}") from error

    def load(self) -> dict[str, Any] | None:
        """Returns the saved state, or ``None`` if there is no file.

        Raises:
            ConfigError: The file is damaged, or belongs to a run with other settings.
        """
        if not self.path.exists():
            return None
        try:
            content = torch.load(self.path, weights_only=True)
            version, fingerprint = content["version"], content["fingerprint"]
        except Exception as error:  # torch raises many kinds of errors for a damaged file
            raise ConfigError(
                f"the checkpoint {self.path} can't be read ({type(error).__name__}); "
                "delete it to start anew"
            ) from error
        if version != _VERSION or fingerprint != self._fingerprint:
            raise ConfigError(
                f"the checkpoint {self.path} belongs to a run with another model, bound or "
                "settings; give the same ones to resume, or delete it to start anew"
            )
        state: dict[str, Any] = content["state"]
        return state

    def remove(self) -> None:
        """Deletes the file, if it exists."""
        self.path.unlink(missing_ok=True)


def fingerprint(config: Config, bound: str, samples: int, model: ir.Model) -> str:
    """Returns a text that identifies a run, so that a checkpoint of another run is refused.

    It does not depend on the time limit, which may change when a run goes on.

    Args:
        config: The settings of the run.
        bound: The bounds as text.
        samples: Number of training samples.
        model: The float model.
    """
    settings = config.model_dump(mode="json", exclude={"time_limit"})
    weights = {
        name: zlib.crc32(value.const_value.tobytes())
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }
    content = json.dumps([settings, bound, samples, weights], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
