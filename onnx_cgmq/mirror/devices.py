"""Chooses the device that a run computes on."""

from __future__ import annotations

import torch

from onnx_cgmq.contract.launch import Launch
from onnx_cgmq.errors import ConfigError


def chosen_device(setting: str) -> torch.device:
    """The device that a setting names.

    Args:
        setting: ``auto`` (a GPU of CUDA if there is one, else of Apple, else the CPU), ``cpu``,
            ``cuda``, ``cuda:1`` or ``mps``. Of several processes on a machine each gets a GPU of
            its own, unless a number is given.

    Raises:
        ConfigError: This machine has no such device, or this build of torch can't use it.
    """
    if setting == "auto":
        setting = next(name for name in ("cuda", "mps", "cpu") if not _lacks(name))
    if reason := _lacks(setting):
        raise ConfigError(
            f"device '{setting}': {reason}; choose another device, or 'auto' (--device auto)"
        )
    launch = Launch.of_environment()
    if setting == "cuda" and launch.count > 1:
        return torch.device("cuda", launch.local_rank % torch.cuda.device_count())
    return torch.device(setting)


def _lacks(name: str) -> str:
    """Why there is no such device; empty if there is."""
    kind, _, index = name.partition(":")
    if kind == "mps" and not torch.backends.mps.is_available():
        return "this machine has no GPU of Apple that torch can use"
    if kind == "cuda":
        count = torch.cuda.device_count()
        if not count and torch.version.cuda is None:
            return f"this torch ({torch.__version__}) is built without CUDA; see pytorch.org"
        if not count:
            return "torch finds no GPU of CUDA; 'nvidia-smi' shows whether the driver does"
        if index and int(index) >= count:
            return f"this machine has {count} GPU{'s' if count > 1 else ''}, counted from 0"
    return ""
