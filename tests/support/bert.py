"""A tiny encoder and a tiny decoder with a cache, exported as users export such models."""

from __future__ import annotations

import io
import math
import warnings

import onnx
import torch
from torch import Tensor, nn

VOCABULARY, WIDTH, HEADS, LAYERS, HIDDEN = 50, 32, 4, 2, 64
_SIZE = WIDTH // HEADS


class _Attention(nn.Module):
    """Attention whose heads are split by sizes that the graph computes, as transformers does."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor, mask: Tensor, past: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        shape = (*x.shape[:-1], -1, _SIZE)
        q, k, v = (part(x).view(shape).transpose(1, 2) for part in (self.q, self.k, self.v))
        if past:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        shares = (q @ k.transpose(-1, -2) / math.sqrt(_SIZE) + mask).softmax(-1)
        y = (shares @ v).transpose(1, 2)
        return self.o(y.reshape(*y.shape[:2], -1)), k, v


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = _Attention()
        self.norm, self.last_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.wide, self.narrow = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x: Tensor, mask: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        y, *cache = self.attention(x, mask, past)
        x = self.norm(x + y)
        return self.last_norm(x + self.narrow(nn.functional.gelu(self.wide(x)))), *cache


class Bert(nn.Module):
    """An encoder with a pooler, which reads tokens and a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(64, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.layers = nn.ModuleList(_Layer() for _ in range(LAYERS))
        self.pooler = nn.Linear(WIDTH, WIDTH)

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        hidden = (1.0 - mask[:, None, None, :].float()) * -10000.0
        x = self.norm(self.words(tokens) + self.places(torch.arange(tokens.shape[1])))
        for layer in self.layers:
            x = layer(x, hidden)[0]
        return x, torch.tanh(self.pooler(x[:, 0]))

    @staticmethod
    def macs(length: int) -> int:
        """Multiply-accumulates of one sample, counted by hand."""
        dense = 4 * WIDTH**2 + 2 * WIDTH * HIDDEN
        return LAYERS * (length * dense + 2 * length**2 * WIDTH) + WIDTH**2


class Decoder(nn.Module):
    """A decoder of one layer with a cache, whose head is its embedding table."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.layer = nn.Embedding(VOCABULARY, WIDTH), _Layer()

    def forward(self, tokens: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        new, old = tokens.shape[1], key.shape[2]
        seen = torch.arange(old + new)[None, :] <= torch.arange(new)[:, None] + old
        mask = torch.where(seen, 0.0, -10000.0)[None, None]
        x, *cache = self.layer(self.words(tokens), mask, key, value)
        return x @ self.words.weight.T, *cache

    @staticmethod
    def macs(length: int, past: int) -> int:
        """Multiply-accumulates of one sample, counted by hand."""
        dense = 4 * WIDTH**2 + 2 * WIDTH * HIDDEN + WIDTH * VOCABULARY
        return length * dense + 2 * length * (length + past) * WIDTH


def export_bert(*, dynamo: bool = False, length: int | None = None) -> onnx.ModelProto:
    """Exports the encoder.

    Args:
        dynamo: Whether to use torch's newer exporter.
        length: The number of tokens that the model fixes; it is open by default.
    """
    torch.manual_seed(0)
    example = (
        torch.randint(0, VOCABULARY, (2, length or 7)),
        torch.ones(2, length or 7, dtype=torch.int64),
    )
    open_axes = {0: "batch_size", 1: "sequence_length"} if length is None else {0: "batch_size"}
    inputs, outputs = ["input_ids", "attention_mask"], ["last_hidden_state", "pooled"]
    return _export(Bert(), example, [open_axes] * 2, inputs, outputs, dynamo=dynamo)


def export_decoder() -> onnx.ModelProto:
    """Exports the decoder, with open lengths."""
    torch.manual_seed(0)
    past = [torch.randn(2, HEADS, 5, _SIZE) for _ in range(2)]
    example = (torch.randint(0, VOCABULARY, (2, 3)), *past)
    cached = {0: "batch_size", 2: "past_length"}
    axes = [{0: "batch_size", 1: "length"}, cached, cached]
    inputs = ["input_ids", "past_key_values.0.key", "past_key_values.0.value"]
    return _export(Decoder(), example, axes, inputs, ["logits", "key", "value"])


def _export(
    network: nn.Module,
    example: tuple[Tensor, ...],
    axes: list[dict[int, str]],
    inputs: list[str],
    outputs: list[str],
    *,
    dynamo: bool = False,
) -> onnx.ModelProto:
    names = {"input_names": inputs, "output_names": outputs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters' own deprecations
        if dynamo:
            shapes = tuple({axis: torch.export.Dim(name) for axis, name in a.items()} for a in axes)
            program = torch.onnx.export(
                network.eval(), example, dynamo=True, dynamic_shapes=shapes, verbose=False, **names
            )
            assert program is not None
            return program.model_proto
        content = io.BytesIO()
        torch.onnx.export(
            network.eval(),
            example,
            content,
            dynamo=False,
            opset_version=17,
            dynamic_axes=dict(zip(inputs, axes, strict=True)),
            **names,
        )
    return onnx.load_from_string(content.getvalue())
