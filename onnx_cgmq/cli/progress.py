"""Shows the progress of a run on a terminal: one bar, and one line for each epoch."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from onnx_cgmq.contract.events import (
    EpochDone,
    Event,
    Finished,
    Notice,
    PointDone,
    StageDone,
    StageProgress,
    Started,
    StepDone,
)


class ProgressConsole(Console):
    """A console that falls silent, instead of ending the program, when nobody reads it any more."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


class ProgressDisplay:
    """Shows the events of a run. It is a context manager, so that the bar always ends.

    Args:
        console: Where to show them. If it is not a terminal, only the lines are printed.

    Attributes:
        started: The first event of the run, once it has come.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description:8}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("prepare", total=None, state="")
        self._epochs = 0
        self._bits = ""
        self.started: Started | None = None

    def __enter__(self) -> ProgressDisplay:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone):
            self._show_step(event)
        elif isinstance(event, EpochDone):
            self._show_epoch(event)
        elif isinstance(event, StageProgress):
            self._show_progress(event)
        elif isinstance(event, StageDone):
            self._show_stage(event)
        elif isinstance(event, Started):
            self._show_start(event)
        elif isinstance(event, PointDone):
            self._show_point(event)
        elif isinstance(event, Notice):
            self._print(f"note: {event.message}")
        elif isinstance(event, Finished):
            self._progress.update(self._task, visible=False)

    def _show_start(self, event: Started) -> None:
        self.started = event
        self._epochs = event.epochs
        self._progress.update(self._task, total=event.total_steps or None)
        accuracy = (
            "no class labels"
            if event.float_accuracy is None
            else f"float accuracy {event.float_accuracy:.2%}"
        )
        for item in event.bounds:
            self._print(f"bound {item.bound} = {item.limit:,} {item.unit}")
        if event.epochs:
            accuracy += f"; {event.epochs} epochs"
        if event.expected_seconds is not None:
            accuracy += f"; learning takes about {_duration(event.expected_seconds)}"
        self._print(accuracy)

    def _show_progress(self, event: StageProgress) -> None:
        self._progress.update(
            self._task, completed=event.done, total=event.total, description=event.stage
        )

    def _show_stage(self, event: StageDone) -> None:
        self._print(
            f"{event.stage:14} held out {event.validation_loss:.4f}"
            f"{_accuracy(event.validation_accuracy)}  {event.seconds:.1f} s"
        )

    def _show_point(self, event: PointDone) -> None:
        cost = "" if event.share is None else f" costs {event.share:.3%}:"
        self._print(f"point {event.bound}{cost} {event.text}  {event.seconds:.1f} s")

    def _show_step(self, event: StepDone) -> None:
        state = f"loss {event.loss:.4f}  cost {event.cost_ratio:7.1%} of bound{self._bits}"
        self._progress.update(
            self._task, completed=event.step, description=event.phase, state=state
        )

    def _show_epoch(self, event: EpochDone) -> None:
        self._bits = (
            f"  bits {event.mean_bits_weights:.2f} weights, "
            f"{event.mean_bits_activations:.2f} activations"
        )
        accuracy = _accuracy(event.validation_accuracy)
        ratios = ", ".join(
            f"{cost / (limit or 1):.1%}"
            for cost, limit in zip(event.costs, event.limits, strict=True)
        )
        self._print(
            f"epoch {event.epoch:3}/{self._epochs} {event.phase:8} loss {event.loss:.4f}"
            f"  held out {event.validation_loss:.4f}{accuracy}  RBOP {event.rbop:.3%}"
            f"  cost {ratios} of bound{'' if event.feasible else ' (over)'}{self._bits}"
            f"  {event.seconds:.1f} s"
        )

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def _accuracy(share: float | None) -> str:
    return "" if share is None else f"  accuracy {share:.2%}"


def _duration(seconds: float) -> str:
    """A time in words, as exact as an estimate deserves."""
    if seconds < 90:
        return f"{max(1, round(seconds / 10)) * 10} seconds"
    return f"{round(seconds / 60)} minutes"
