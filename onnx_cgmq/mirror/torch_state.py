"""The state of torch in which a mirror computes its graph, whatever the caller has set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import torch

_CPU: Final = torch.device("cpu")


@contextmanager
def plain_numbers(device: torch.device = _CPU) -> Iterator[None]:
    """Computes in float32 in the block: no autocast or TF32, no other default type or device.

    Whether gradients are taken is left to the caller.

    Args:
        device: Where new tensors are made, if the caller's default is not the CPU.
    """
    dtype, precision = torch.get_default_dtype(), torch.get_float32_matmul_precision()
    with ExitStack() as stack:
        if torch.is_autocast_enabled(device.type):
            stack.enter_context(torch.autocast(device.type, enabled=False))
        if torch.get_default_device() not in (_CPU, device):
            stack.enter_context(device)
        if dtype is not torch.float32:
            stack.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
        if device.type == "cuda" and torch.backends.cudnn.allow_tf32:
            stack.callback(setattr, torch.backends.cudnn, "allow_tf32", True)
            torch.backends.cudnn.allow_tf32 = False
        if precision != "highest":
            stack.callback(torch.set_float32_matmul_precision, precision)
            torch.set_float32_matmul_precision("highest")
        yield


@contextmanager
def plain_torch(seed: int | None = None) -> Iterator[None]:
    """Builds and learns in the block as in a fresh process, and leaves torch as it was.

    Gradients are on, numbers are plain (:func:`plain_numbers`), and the generator of the CPU has
    the state afterwards that it had before.

    Args:
        seed: The seed of the generator in the block; by default it goes on where it is.
    """
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        plain_numbers(),
        torch.random.fork_rng(devices=()),
    ):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        yield
