"""Quantizes an ONNX file with NNCF; for an interpreter that has ``nncf`` and ``onnx``.

Started by ``tools/bench/peers.py``; ``tools/workers/peer.py`` says what it takes.
"""

from __future__ import annotations

from pathlib import Path

import nncf
import onnx
import onnx.version_converter

from tools.workers import peer

_OPSET = 13  # the first with scales by channel; NNCF upgrades no model


def quantize(model: Path, arrays: peer.Arrays, output: Path, *, fast_bias_correction: bool) -> None:
    """All else are the defaults: 300 of the samples, INT8 by channel."""
    dataset = nncf.Dataset(peer.batches(arrays, 1))
    proto = onnx.load(model)
    if next(known.version for known in proto.opset_import if not known.domain) < _OPSET:
        proto = onnx.version_converter.convert_version(proto, _OPSET)
    onnx.save(nncf.quantize(proto, dataset, fast_bias_correction=fast_bias_correction), output)


if __name__ == "__main__":
    peer.main(quantize)
