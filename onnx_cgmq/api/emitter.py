"""Sends the events of a run to all that want them."""

from __future__ import annotations

from collections.abc import Callable

from onnx_cgmq.contract.events import Event, MetricsLog, StageProgress, StageStarted, StepDone

Progress = Callable[[Event], None]
"""Is called with each event of a run."""


def emitter(
    progress: Progress | None,
    log: MetricsLog | None,
    kept: list[Event],
) -> Progress:
    """Makes a function that sends events to the caller and the log, and keeps most kinds."""

    def emit(event: Event) -> None:
        if not isinstance(event, (StageStarted, StageProgress, StepDone)):
            kept.append(event)
        if log is not None:
            log(event)
        if progress is not None:
            progress(event)

    return emit
