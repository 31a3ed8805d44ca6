"""What the progress display shows of the events of a run."""

from __future__ import annotations

from io import StringIO

import pytest

from onnx_cgmq.cli.options import working
from onnx_cgmq.cli.progress import ProgressConsole, ProgressDisplay
from onnx_cgmq.cli.say import say
from onnx_cgmq.contract.events import (
    EpochDone,
    Limit,
    StageDone,
    StageProgress,
    StageStarted,
    Started,
)


def test_the_bar_follows_the_stages() -> None:
    text = StringIO()
    display = ProgressDisplay(ProgressConsole(file=text, force_terminal=True, width=200))
    with display:
        display(Started(0, 0, None, (Limit("5%", 1000, "bit operations"),)))
        for stage, total in (("allocate", 5), ("reconstruct", 3)):
            for done in range(1, total + 1):
                display(StageProgress(stage, done, total))
                (task,) = display._progress.tasks
                assert (task.description, task.completed, task.total) == (stage, done, total)
            display(StageDone(stage, 0.25, None, 1.0))
    shown = text.getvalue()
    assert "no class labels" in shown
    assert "epochs" not in shown
    assert "reconstruct  held out 0.2500  1.0 s" in shown


def test_stages_are_named_as_they_begin() -> None:
    text = StringIO()
    display = ProgressDisplay(ProgressConsole(file=text, force_terminal=True, width=200))
    with display:
        display(StageStarted("prepare"))
        (task,) = display._progress.tasks
        assert (task.description, task.total) == ("prepare", None)  # a bar without an end
        display(StageProgress("allocate", 3, 5))
        display(StageStarted("verify"))
        (task,) = display._progress.tasks
        assert (task.description, task.completed, task.total) == ("verify", 0, None)


def test_each_stage_is_a_line_where_there_is_no_bar() -> None:
    text = StringIO()
    with ProgressDisplay(ProgressConsole(file=text, width=200)) as display:
        for done in range(3):
            display(StageProgress("allocate", done, 3))
        display(StageStarted("verify"))
    assert text.getvalue() == "allocate ...\nverify ...\n"


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_an_epoch_is_one_line(width: int) -> None:
    text = StringIO()
    epoch = EpochDone(
        3, "settled", 1.2345, 1.3456, 0.9876, 0.0312, (990,), (1000,), True, 2.5, 3.5, 123.4
    )
    with ProgressDisplay(ProgressConsole(file=text, width=width)) as display:
        display(Started(100, 12, 0.99, ()))
        display(epoch)
    line = text.getvalue().splitlines()[-1]
    assert line.startswith("epoch  3/12 settled")
    assert len(line) <= max(width, 77)
    assert "held out 1.3456  accuracy 98.76%" in line
    assert ("bits 2.50 weights" in line) == (width > 130)


class Terminal(StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "shown"), [(Terminal(), True), (StringIO(), False)])
def test_what_takes_time_is_named_on_a_terminal(
    stream: StringIO, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with working("inspect [red]model.onnx"):
        pass
    assert ("inspect [red]model.onnx" in stream.getvalue()) == shown
    assert shown or not stream.getvalue()


@pytest.mark.parametrize(
    ("stream", "lines"), [(Terminal(), ["error: a", "long-word", "b"]), (StringIO(), None)]
)
def test_sentences_end_between_words_on_a_terminal(
    stream: StringIO, lines: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("COLUMNS", "9")
    say("error: a long-word b", err=True)
    assert stream.getvalue().splitlines() == (lines or ["error: a long-word b"])


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "10 seconds"), (44, "40 seconds"), (200, "3 minutes")]
)
def test_it_says_how_long_a_run_will_take(seconds: float, words: str) -> None:
    text = StringIO()
    with ProgressDisplay(ProgressConsole(file=text, width=200)) as display:
        display(Started(0, 0, None, (), expected_seconds=seconds))
    assert f"learning takes about {words}" in text.getvalue()
