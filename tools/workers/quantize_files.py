"""Quantizes the cases of a folder with whichever onnx-cgmq is on the path; prints their hashes.

Started by ``tools/compare/written_files.py``, once for each version that is compared, with a folder
that holds ``cases.json``: a list of ``{"name", "model", "data", "bound", "settings"}``. Only names
that every version has are used: ``quantize`` and ``Result.save``.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import torch

import onnx_cgmq as cgmq


def main() -> None:
    """Prints a JSON line with the folder of the package, then one with the hash of each file."""
    folder, target = Path(sys.argv[1]), Path(sys.argv[2])
    print(json.dumps({"package": str(Path(cgmq.__file__).resolve().parent)}), flush=True)
    torch.set_num_threads(1)  # so that sums are made in the same order on every machine
    for case in json.loads((folder / "cases.json").read_text(encoding="utf-8")):
        result = cgmq.quantize(
            str(folder / case["model"]),
            str(folder / case["data"]),
            case["bound"],
            **case["settings"],
        )
        path = target / f"{case['name']}.onnx"
        result.save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        record = {"name": case["name"], "bytes": path.stat().st_size, "sha256": digest}
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
