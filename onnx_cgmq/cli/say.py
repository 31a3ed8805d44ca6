"""Prints sentences, which end their lines between words on a terminal."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap

import typer


def say(text: str, *, err: bool = False) -> None:
    """Prints a text to stdout or stderr; on a terminal, its lines end between words.

    In a file or pipe its lines stay whole, so that they can be searched for.
    """
    stream = sys.stderr if err else sys.stdout
    if "COLUMNS" in os.environ or (stream is not None and stream.isatty()):
        width = shutil.get_terminal_size().columns
        lines = (
            textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
            for line in text.splitlines()
        )
        text = "\n".join(lines)
    typer.echo(text, err=err)
