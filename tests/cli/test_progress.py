"""What the progress display shows of the events of a run."""

from __future__ import annotations

from io import StringIO

import pytest

from onnx_cgmq.cli.progress import ProgressConsole, ProgressDisplay
from onnx_cgmq.contract.events import Limit, StageDone, StageProgress, Started


def test_the_bar_follows_the_stages() -> None:
    text = StringIO()
    display = ProgressDisplay(ProgressConsole(file=text, force_terminal=True, width=200))
    with display:
        display(Started(0, 0, None, (Limit("5%", 1000, "bit operations"),)))
        (task,) = display._progress.tasks
        for stage, total in (("allocate", 5), ("reconstruct", 3)):
            for done in range(1, total + 1):
                display(StageProgress(stage, done, total))
                assert (task.description, task.completed, task.total) == (stage, done, total)
            display(StageDone(stage, 0.25, None, 1.0))
    shown = text.getvalue()
    assert "no class labels" in shown
    assert "epochs" not in shown
    assert "reconstruct    held out 0.2500  1.0 s" in shown


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "10 seconds"), (44, "40 seconds"), (200, "3 minutes")]
)
def test_it_says_how_long_a_run_will_take(seconds: float, words: str) -> None:
    text = StringIO()
    with ProgressDisplay(ProgressConsole(file=text, width=200)) as display:
        display(Started(0, 0, None, (), expected_seconds=seconds))
    assert f"learning takes about {words}" in text.getvalue()
