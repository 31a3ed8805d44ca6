"""Runs a script of a fault, which may import modules by names that they no longer have.

Started by ``tools/compare/cases.py`` with the script; what the script prints and its exit code are
those of this process.
"""

from __future__ import annotations

import importlib
import runpy
import sys
from pathlib import Path
from typing import Final

_MOVED: Final = {"onnx_cgmq.plan": "onnx_cgmq.contract.plan"}
"""Present names of modules by their former names."""


def main() -> None:
    script = Path(sys.argv[1])
    text = script.read_text(encoding="utf-8")
    for former, present in _MOVED.items():
        if former in text:  # else nothing is imported before the script itself
            sys.modules[former] = importlib.import_module(present)
    sys.argv = sys.argv[1:]
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main()
