"""Quantizes an ONNX file with AIMET; for an interpreter that has ``aimet-onnx``.

Started by ``tools/bench/peers.py``; ``tools/workers/peer.py`` says what it takes.
"""

from __future__ import annotations

from pathlib import Path

import aimet_onnx
import onnx
import torch
from aimet_onnx.cross_layer_equalization import equalize_model

from tools.workers import peer

_BATCH = 32  # that AdaRound takes at most
_BY_CHANNEL = (
    Path(aimet_onnx.__file__).parent / "common/quantsim_config/default_config_per_channel.json"
)


def quantize(
    model: Path, arrays: peer.Arrays, output: Path, *, weight_bits: int, iterations: int
) -> None:
    """Cross-layer equalization, weights by channel, and AdaRound if it gets iterations."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    samples = peer.batches(arrays, _BATCH)
    proto = onnx.load(model)
    equalize_model(proto)  # in place
    sim = aimet_onnx.QuantizationSimModel(
        proto,
        param_type={4: aimet_onnx.int4, 8: aimet_onnx.int8}[weight_bits],
        activation_type=aimet_onnx.int8,
        config_file=str(_BY_CHANNEL),
    )
    if iterations:
        aimet_onnx.apply_adaround(sim, samples, num_iterations=iterations)
    sim.compute_encodings(samples)
    onnx.save(sim.to_onnx_qdq(prequantize_constants=True), output)


if __name__ == "__main__":
    peer.main(quantize)
