"""Prints sentences, which end their lines between words on a terminal."""

from __future__ import annotations

import shutil
import sys
import textwrap

import typer


def shown_width(*, err: bool = False) -> int | None:
    """Returns the width of the terminal that stdout or stderr is; ``None`` if it is none.

    ``COLUMNS`` counts for a terminal only: readline puts it into the environment of whatever a
    program starts, also where the output is read by that program.
    """
    stream = sys.stderr if err else sys.stdout
    terminal = stream is not None and stream.isatty()
    return shutil.get_terminal_size().columns if terminal else None


def say(text: str, *, err: bool = False) -> None:
    """Prints a text to stdout or stderr; on a terminal, its lines end between words.

    In a file or pipe its lines stay whole, so that they can be searched for.
    """
    width = shown_width(err=err)
    if width is not None:
        lines = (
            textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
            for line in text.splitlines()
        )
        text = "\n".join(lines)
    typer.echo(text, err=err)
