"""Why is this so? Decisions of passes and of placement, each with a sentence.

A decision that a user may ask about is written to the log ``onnx_cgmq.decisions`` at debug level
(``--debug`` shows it), and collected for whoever asks (:func:`~onnx_cgmq.api.explain.explain`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from typing import Final


class Verdict(str, Enum):
    """What was decided of a node or a tensor."""

    QUANTIZED = "gets a quantizer"
    FLOAT = "stays float"
    INTEGER = "runs in integers"
    PACKED = "runs with packed weights"
    SLOW = "runs in a slow integer kernel"
    REWRITTEN = "is rewritten"
    LEFT = "is left as it is"


@dataclass(frozen=True)
class Decision:
    """One decision.

    Attributes:
        name: Name of the node or tensor.
        verdict: What was decided.
        reason: Why, in words that follow "because"; empty where the verdict says all.
    """

    name: str
    verdict: Verdict
    reason: str = ""

    def __str__(self) -> str:
        because = f", because {self.reason}" if self.reason else ""
        return f"'{self.name}' {self.verdict.value}{because}"


_LOG: Final = logging.getLogger("onnx_cgmq.decisions")
_COLLECTED: Final[ContextVar[list[Decision] | None]] = ContextVar("decisions", default=None)


def decide(name: str | None, verdict: Verdict, reason: str = "") -> None:
    """Writes a decision to the log, and hands it to those who collect.

    Args:
        name: Name of the node or tensor.
        verdict: What was decided.
        reason: Why, in words that follow "because".
    """
    collected = _COLLECTED.get()
    if collected is None and not _LOG.isEnabledFor(logging.DEBUG):
        return
    decision = Decision(str(name), verdict, reason)
    _LOG.debug("%s", decision)
    if collected is not None:
        collected.append(decision)


@contextmanager
def collected_decisions() -> Iterator[list[Decision]]:
    """Collects the decisions that are made within the context, in order."""
    found: list[Decision] = []
    token = _COLLECTED.set(found)
    try:
        yield found
    finally:
        _COLLECTED.reset(token)
