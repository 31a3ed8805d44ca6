"""``python -m onnx_cgmq.examples [FOLDER]`` writes the files of the example."""

from __future__ import annotations

import argparse
import sys

from onnx_cgmq.errors import OutputError
from onnx_cgmq.examples import digits


def main() -> None:
    """Writes the files, and prints their paths."""
    parser = argparse.ArgumentParser(
        prog="python -m onnx_cgmq.examples",
        description="Write a trained float model and real digits as files.",
    )
    parser.add_argument("folder", nargs="?", default=".", help="where to (default: here)")
    try:
        example = digits(parser.parse_args().folder)
    except OutputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(example.model, example.train, example.test, sep="\n")


if __name__ == "__main__":
    main()
