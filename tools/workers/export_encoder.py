"""Exports a sentence encoder from a folder of transformers: lines in, one embedding for each out.

Started by ``tools/bench/howto.py``; transformers must be there:

    python -m tools.workers.export_encoder FOLDER encoder.onnx
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn
from transformers import AutoModel

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class SentenceEncoder(nn.Module):
    """The mean of the embeddings of all tokens that count, of length 1."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.encoder = AutoModel.from_pretrained(folder, attn_implementation="eager")

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Embeddings ``[N, size]`` of lines ``[N, length]``."""
        tokens = self.encoder(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state
        counts = attention_mask.unsqueeze(-1).to(tokens.dtype)
        return nn.functional.normalize((tokens * counts).sum(1) / counts.sum(1), dim=1)


def main() -> None:
    folder, target = sys.argv[1:]
    size = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    torch.onnx.export(
        SentenceEncoder(folder).eval(),
        tuple(torch.ones(2, 16, dtype=torch.int64) for _ in _INPUTS),
        target,
        input_names=list(_INPUTS),
        output_names=["sentence_embedding"],
        dynamic_shapes=tuple(size for _ in _INPUTS),
        dynamo=True,
        external_data=False,
        verbose=False,
    )


if __name__ == "__main__":
    main()
