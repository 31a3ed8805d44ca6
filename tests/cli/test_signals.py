"""Signals stop a command as Ctrl-C does, and change nothing for those who import the package."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import threading

import pytest
import typer

from onnx_cgmq import cli
from onnx_cgmq.api.pipeline import quantize
from onnx_cgmq.cli.failures import reported
from onnx_cgmq.cli.progress import ProgressConsole, ProgressDisplay
from onnx_cgmq.cli.signals import asked_to_stop, signals_stop
from onnx_cgmq.contract.events import Notice
from onnx_cgmq.contract.stopped import Stopped
from tests.support.toys import mlp, toy_data

STOPS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.fixture(autouse=True)
def _handlers():
    """The handlers with which a program starts."""
    before = {number: signal.getsignal(number) for number in STOPS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    with signals_stop():
        pass  # forgets what was asked


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in STOPS]


def test_signals_raise_and_the_handlers_come_back() -> None:
    before = handlers()
    for number, reason in ((signal.SIGTERM, "terminated"), (signal.SIGHUP, "hung up")):
        with pytest.raises(Stopped) as caught, signals_stop():  # noqa: PT012
            assert asked_to_stop() is None
            signal.raise_signal(number)
        assert caught.value.reason == asked_to_stop() == reason
        assert handlers() == before
    with pytest.raises(KeyboardInterrupt), signals_stop():
        signal.raise_signal(signal.SIGINT)
    assert asked_to_stop() == "interrupted"
    assert handlers() == before


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with signals_stop():
        signal.raise_signal(signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_other_threads_leave_signals_alone() -> None:
    before, seen = handlers(), []

    def work() -> None:
        with signals_stop():
            seen.extend(handlers())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == before


def test_a_run_from_python_leaves_signals_alone() -> None:
    before, seen = handlers(), []
    quantize(mlp(), toy_data(mlp()), "5%", epochs=1, progress=lambda _: seen.append(handlers()))
    assert seen
    assert all(found == before for found in [*seen, handlers()])


@pytest.mark.parametrize("number", STOPS)
@pytest.mark.parametrize("error", [None, ImportError("initialization failed")])
def test_a_signal_before_a_command_begins_shows_no_traceback(
    monkeypatch, capsys, number, error
) -> None:
    def app(**_: object) -> None:
        try:
            signal.raise_signal(number)
        except BaseException:
            raise error or sys.exc_info()[1] from None

    monkeypatch.setattr("onnx_cgmq.cli.app.app", app)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == STOPS[number]
    shown = capsys.readouterr().err
    assert "before the command began" in shown
    assert "Traceback" not in shown


def test_an_error_without_a_signal_is_not_hidden(monkeypatch) -> None:
    def app(**_: object) -> None:
        raise ImportError("no module")

    monkeypatch.setattr("onnx_cgmq.cli.app.app", app)
    with pytest.raises(ImportError, match="no module"):
        cli.main()


@pytest.mark.parametrize("number", STOPS)
@pytest.mark.parametrize("there", [False, True])
def test_a_stopped_command_names_the_checkpoint(tmp_path, capsys, number, there) -> None:
    checkpoint = tmp_path / "out.checkpoint"
    if there:
        checkpoint.write_bytes(b"")
    with pytest.raises(typer.Exit) as ended, signals_stop():  # noqa: SIM117
        with reported(as_json=True, debug=False, checkpoint=checkpoint):
            signal.raise_signal(number)
    assert ended.value.exit_code == STOPS[number]
    shown = capsys.readouterr()
    assert (f"--resume goes on from {checkpoint}" in shown.err) == there
    assert ("nothing was written" in shown.err) == (not there)
    assert f'"exit_code": {STOPS[number]}' in shown.out


def test_an_error_that_a_signal_caused_is_no_bug(capsys) -> None:
    with pytest.raises(typer.Exit) as ended, signals_stop():  # noqa: PT012, SIM117
        with reported(as_json=False, debug=False):
            try:
                signal.raise_signal(signal.SIGTERM)
            except Stopped:
                raise SystemError("initialization failed") from None
    assert ended.value.exit_code == 143
    assert "bug" not in capsys.readouterr().err


def test_output_to_a_terminal_that_is_gone_is_no_error() -> None:
    """A session whose terminal closes gets SIGHUP; what it prints from then on would fail."""
    code = """
import os, sys
from onnx_cgmq.cli.signals import signals_stop
from onnx_cgmq.contract.stopped import Stopped
with signals_stop():
    try:
        os.write(3, b"ready")
        while True:
            os.read(4, 1)
    except Stopped:
        print("a table", flush=True)
        os.write(3, b" printed")
"""
    told, tell = os.pipe()
    wait, hold = os.pipe()
    child, terminal = pty.fork()
    if child == 0:
        os.dup2(tell, 3, inheritable=True)
        os.dup2(wait, 4, inheritable=True)
        os.execv(sys.executable, [sys.executable, "-c", code])
    os.close(tell)
    assert os.read(told, 5) == b"ready"
    os.close(terminal)
    os.waitpid(child, 0)
    assert os.read(told, 100) == b" printed"
    for descriptor in (told, wait, hold):
        os.close(descriptor)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_run_writes_its_best_model_and_goes_on(model, data, tmp_path, number) -> None:
    command = [sys.executable, "-m", "onnx_cgmq", "quantize", str(model), "--data", str(data)]
    command += ["--bound", "12.5%", "-o", str(tmp_path / "out.onnx"), "--epochs", "100000"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stderr is not None
        assert any(line.startswith("epoch ") for line in run.stderr)
        run.send_signal(number)
        _, shown = run.communicate()
    assert run.returncode == STOPS[number]
    assert "best model so far that keeps the bound" in shown
    assert "Traceback" not in shown
    assert (tmp_path / "out.onnx").exists()
    limited = [*command, "--resume", "--time-limit", "0.001"]
    resumed = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert resumed.returncode == 0, resumed.stderr


def test_a_run_outlives_the_reader_of_its_progress() -> None:
    read, write = os.pipe()
    os.close(read)
    nobody_reads = os.fdopen(write, "w")
    display = ProgressDisplay(ProgressConsole(file=nobody_reads))
    with display:
        display(Notice("one"))
        display(Notice("two"))
    with contextlib.suppress(BrokenPipeError):
        nobody_reads.close()
