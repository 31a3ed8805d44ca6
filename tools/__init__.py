"""Commands of this repository; they make the figures in the docs. The wheel does not hold them.

Each runs from the root of the repository, for example ``python -m tools.bench.deploy --help``.

* ``bench``: how well the package does: accuracy, time, memory, size.
* ``compare``: the package beside other projects, other versions of onnxruntime, its own past.
* ``fuzz``: random networks and broken files, to find errors.
* ``measure``: what onnxruntime can do and what that costs.
* ``fetch``: the models and data that all of these use.
* ``workers``: what the others start in a process of its own.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The root of the repository."""
