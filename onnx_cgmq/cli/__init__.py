"""The command line: each command parses its arguments, calls the API and shows the result."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Runs the command line of this process, and exits with the code that docs/cli.md lists."""
    import io
    import os
    import sys

    from onnx_cgmq.cli.signals import EXIT_CODES, asked_to_stop, signals_stop

    # Like `python -m`, this finds the user's package.module:factory in the current folder. The
    # folder comes last, so that files in it never hide an installed package.
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    # Names in a model may have characters that the encoding of the output lacks.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with signals_stop():
        try:
            from onnx_cgmq.cli.app import app

            app(prog_name="onnx-cgmq")
        except SystemExit:
            raise
        except BaseException:  # commands report errors; here is what stops the program before
            reason = asked_to_stop()
            if reason is None:
                raise
            print(f"error: {reason} before the command began", file=sys.stderr)
            sys.exit(EXIT_CODES[reason])
