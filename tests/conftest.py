"""One thread for every process that runs tests, and for every process that a test starts.

The tensors of the tests are tiny: threads would only wait for each other, and the workers of
pytest-xdist would take each other's cores. torch and numpy read the variable when they are
imported, which is after pytest has read this file.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
