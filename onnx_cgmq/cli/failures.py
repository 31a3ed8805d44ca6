"""Turns errors into one clear message and an exit code that scripts can rely on (docs/cli.md)."""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import typer

from onnx_cgmq.cli.say import say
from onnx_cgmq.cli.signals import EXIT_CODES, INTERRUPTED, asked_to_stop
from onnx_cgmq.contract.stopped import Stopped
from onnx_cgmq.errors import CgmqError, OutputError

UNEXPECTED = 70
"""Exit code of an error in onnx-cgmq itself (EX_SOFTWARE of sysexits.h)."""

DROP_NOT_KEPT = 9
"""Exit code of a run whose model loses more than was allowed; it is written all the same."""


@contextmanager
def reported(*, as_json: bool, debug: bool, checkpoint: Path | None = None) -> Iterator[None]:
    """Turns an exception of a command into a message on stderr and an exit code.

    Args:
        as_json: Print the error as a JSON document on stdout too.
        debug: Print the decisions of passes and placement as they are made, and the traceback.
        checkpoint: What a run that is stopped can go on from, once it is there.

    Raises:
        typer.Exit: With the exit code of the error.
    """
    try:
        with _decisions_shown() if debug else nullcontext():
            yield
    except typer.Exit:
        raise
    except CgmqError as error:
        if debug:
            traceback.print_exc()
        raise _exit(type(error).__name__, str(error), error.exit_code, as_json) from error
    except (KeyboardInterrupt, Stopped) as error:
        reason = error.reason if isinstance(error, Stopped) else INTERRUPTED
        raise _stopped(type(error).__name__, reason, checkpoint, as_json) from error
    except MemoryError as error:
        message = "out of memory; a smaller --batch-size or --granularity tensor needs less"
        raise _exit("MemoryError", message, UNEXPECTED, as_json) from error
    except Exception as error:
        if debug:
            traceback.print_exc()
        if asked := asked_to_stop():
            raise _stopped(type(error).__name__, asked, checkpoint, as_json) from error
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            message = f"can't write what is to be shown: {error.strerror}; free some space"
            raise _exit(OutputError.__name__, message, OutputError.exit_code, as_json) from error
        message = f"unexpected {type(error).__name__}: {error}"
        if not debug:
            message += " (a bug in onnx-cgmq; please report it with the output of --debug)"
        raise _exit(type(error).__name__, message, UNEXPECTED, as_json) from error


@contextmanager
def _decisions_shown() -> Iterator[None]:
    """Shows what the package logs (:mod:`onnx_cgmq.contract.decisions`) on stderr."""
    log, handler = logging.getLogger("onnx_cgmq"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("debug: %(message)s"))
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def _stopped(kind: str, reason: str, checkpoint: Path | None, as_json: bool) -> typer.Exit:
    message = f"{reason} before there was a model to write; "
    if checkpoint is not None and os.path.isfile(checkpoint):
        message += f"the same command with --resume goes on from {checkpoint}"
    else:
        message += "nothing was written"
    return _exit(kind, message, EXIT_CODES[reason], as_json)


def _exit(kind: str, message: str, code: int, as_json: bool) -> typer.Exit:
    say(f"error: {message}", err=True)
    try:
        if as_json:
            document = {"error": {"type": kind, "message": message, "exit_code": code}}
            typer.echo(json.dumps(document, indent=2))
        if sys.stdout is not None:  # it may have been closed before the program began
            sys.stdout.flush()
    except OSError as error:
        if error.errno != errno.ENOSPC:  # a closed pipe is for typer
            raise
    return typer.Exit(code)
