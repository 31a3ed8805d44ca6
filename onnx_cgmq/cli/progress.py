"""Shows what a command does: a named bar on a terminal, and one line for each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from onnx_cgmq.cli.options import output_console
from onnx_cgmq.contract.events import (
    EpochDone,
    Event,
    Finished,
    Notice,
    PointDone,
    StageDone,
    StageProgress,
    StageStarted,
    Started,
    StepDone,
)

if TYPE_CHECKING:
    from rich.progress import Task


class ProgressConsole(Console):
    """A console that falls silent, instead of ending the program, when nobody reads it any more."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


class _Time(ProgressColumn):
    """The time that remains, or has passed where the end can't be told."""

    _remaining, _elapsed = TimeRemainingColumn(), TimeElapsedColumn()

    def render(self, task: Task) -> Text:
        return (self._elapsed if task.total is None else self._remaining).render(task)


class ProgressDisplay:
    """Shows the events of a run. It is a context manager, so that the bar always ends.

    Args:
        console: Where to show them. If it is not a terminal, only lines are printed.

    Attributes:
        started: The first event of the run, once it has come.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<19}"),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[state]}"),
            _Time(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("start", total=None, state="")
        self._stage = ""
        self._epochs = 0
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
        elif isinstance(event, StageStarted):
            self._enter(event.stage)
        elif isinstance(event, StageProgress):
            self._enter(event.stage)
            self._progress.update(self._task, completed=event.done, total=event.total)
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

    def _enter(self, stage: str) -> None:
        """Names the stage that the bar is for; a line does so where there is no bar."""
        if stage == self._stage:
            return
        self._stage = stage
        self._progress.remove_task(self._task)  # the end of a task can't be forgotten
        self._task = self._progress.add_task(stage, total=None, state="")
        if not self._console.is_terminal:
            self._print(f"{stage} ...")

    def _show_stage(self, event: StageDone) -> None:
        self._print_fitted(
            [
                (0, event.stage),
                (0, f"held out {event.validation_loss:.4f}"),
                (0, _accuracy(event.validation_accuracy)),
                (1, f"{event.seconds:.1f} s"),
            ]
        )

    def _show_point(self, event: PointDone) -> None:
        cost = "" if event.share is None else f" costs {event.share:.3%}:"
        self._print(f"point {event.bound}{cost} {event.text}  {event.seconds:.1f} s")

    def _show_step(self, event: StepDone) -> None:
        self._enter(event.phase)
        self._progress.update(
            self._task,
            completed=event.step,
            total=event.total_steps,
            state=f"loss {event.loss:.4f}  cost {event.cost_ratio:.1%}",
        )

    def _show_epoch(self, event: EpochDone) -> None:
        ratios = ", ".join(
            f"{cost / (limit or 1):.1%}"
            for cost, limit in zip(event.costs, event.limits, strict=True)
        )
        bits = (
            f"{event.mean_bits_weights:.2f} weights, {event.mean_bits_activations:.2f} activations"
        )
        self._print_fitted(
            [
                (0, f"epoch {event.epoch:{len(str(self._epochs))}}/{self._epochs} {event.phase}"),
                (2, f"loss {event.loss:.4f}"),
                (0, f"held out {event.validation_loss:.4f}"),
                (0, _accuracy(event.validation_accuracy)),
                (5, f"RBOP {event.rbop:.3%}"),
                (0, f"cost {ratios} of bound{'' if event.feasible else ' (over)'}"),
                (4, f"bits {bits}"),
                (1, f"{event.seconds:.1f} s"),
            ]
        )

    def _print_fitted(self, parts: Sequence[tuple[int, str]]) -> None:
        """Prints the parts that fit on one line; those with the highest number go first."""
        kept = [(priority, text) for priority, text in parts if text]
        while (highest := max(priority for priority, _ in kept)) and (
            len("  ".join(text for _, text in kept)) > self._console.width
        ):
            kept = [(priority, text) for priority, text in kept if priority < highest]
        self._print("  ".join(text for _, text in kept))

    def _print(self, text: str) -> None:
        # A word longer than a line is left to the terminal, which copies it as one.
        self._console.print(text, highlight=False, markup=False, overflow="ignore")


def _accuracy(share: float | None) -> str:
    return "" if share is None else f"accuracy {share:.2%}"


def _duration(seconds: float) -> str:
    """A time in words, as exact as an estimate deserves."""
    if seconds < 90:
        return f"{max(1, round(seconds / 10)) * 10} seconds"
    return f"{round(seconds / 60)} minutes"


def stderr_display(*, quiet: bool = False) -> ProgressDisplay:
    """A display on stderr, as wide as the terminal; in a file or pipe nothing is cut off."""
    width = output_console(stderr=True).width
    return ProgressDisplay(ProgressConsole(stderr=True, quiet=quiet, width=width))
