"""How this process was started: alone, or as one of several that share a run (``torchrun``)."""

from __future__ import annotations

import os
from dataclasses import dataclass

from onnx_cgmq.errors import ConfigError


@dataclass(frozen=True)
class Launch:
    """What the environment says of the processes of a run.

    Attributes:
        rank: The number of this process, from 0.
        count: How many processes there are.
        local_rank: The number of this process on its machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @classmethod
    def of_environment(cls) -> Launch:
        """Reads what ``torchrun`` sets; without it this process is alone."""
        rank, count = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
        if not (rank.isdecimal() and count.isdecimal() and int(count) > 1):
            return cls()
        return cls(int(rank), int(count), int(os.environ.get("LOCAL_RANK", rank)))

    @property
    def leads(self) -> bool:
        """Whether this is the process that reports and writes."""
        return self.rank == 0

    def check_alone(self, what: str) -> None:
        """Refuses to run as one of several processes, which would all write the same files.

        Args:
            what: What is to run.

        Raises:
            ConfigError: This is one of several.
        """
        if self.count > 1:
            raise ConfigError(
                f"this is process {self.rank} of {self.count} (RANK and WORLD_SIZE, as torchrun "
                f"sets them), but {what} runs in one process; start it without torchrun, or unset "
                "these variables"
            )
