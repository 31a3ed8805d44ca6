"""Where a mirror computes, for all of its nodes."""

from __future__ import annotations

import torch


class Place:
    """The device of a mirror, which all its nodes share. It changes when the mirror moves.

    Attributes:
        device: The device.
    """

    def __init__(self) -> None:
        """Starts on the CPU."""
        self.device = torch.device("cpu")
