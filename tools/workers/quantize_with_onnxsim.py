"""Quantizes an ONNX file with onnxsim; for an interpreter that has ``onnxsim`` and ``onnxruntime``.

Started by ``tools/bench/peers.py``; ``tools/workers/peer.py`` says what it takes.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.version_converter
import onnxsim
from onnxsim.full_qdq import quantize_full_qdq
from onnxsim.quark_weight_rounding import adaround_int8

from tools.workers import peer

_BATCH = 8
_OPSET = 21  # the first with INT4


def quantize(model: Path, arrays: peer.Arrays, output: Path, *, method: str) -> None:
    """Its AdaRound at 8/8, or its AdaRound or BRECQ of INT4 weights; all else are the defaults.

    Raises:
        ValueError: The method changed no weight.
    """
    samples = peer.batches(arrays, _BATCH)
    proto = onnx.load(model)
    if method == "AdaRound 8/8":
        rounded = quantize_full_qdq(proto, samples)
        learned, _ = adaround_int8(proto, rounded, samples)
    else:
        proto = onnx.version_converter.convert_version(proto, _OPSET)
        proto.ir_version = max(proto.ir_version, onnx.IR_VERSION_2024_3_25)  # that opset's
        rounded = onnxsim.quantize_weight_only_int4(proto)
        if method == "AdaRound INT4 weights":
            learned = onnxsim.apply_adaround(proto, rounded, samples)
        else:
            learned = onnxsim.apply_brecq(proto, rounded, _blocks(rounded), samples)
    if learned.SerializeToString() == rounded.SerializeToString():
        raise ValueError(f"{method} changed no weight of this model")
    onnx.save(learned, output)


def _blocks(rounded: onnx.ModelProto) -> list[tuple[str, str]]:
    """The input and output of each layer that BRECQ can take.

    It knows chains of MatMul and Gemm with nothing between them, so a layer is a chain of its own.
    """
    return [
        (node.input[0], node.output[0])
        for node in rounded.graph.node
        if node.op_type in ("MatMul", "Gemm")
    ]


if __name__ == "__main__":
    peer.main(quantize)
