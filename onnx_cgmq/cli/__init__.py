"""The command line: each command parses its arguments, calls the API and shows the result."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Runs the command line of this process, and exits with the code that docs/cli.md lists."""
    import os
    import sys

    from onnx_cgmq.cli.app import app

    # Like `python -m`, this finds the user's package.module:factory in the current folder. The
    # folder comes last, so that files in it never hide an installed package.
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    app(prog_name="onnx-cgmq")
