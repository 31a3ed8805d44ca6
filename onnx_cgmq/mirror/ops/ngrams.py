"""TfIdfVectorizer on integers."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from onnx_cgmq.mirror.core.registry import Context, onnx_op


def _check(ctx: Context) -> str | None:
    if not ctx.has("pool_int64s"):
        return "a pool of strings"
    weights: list[float] | None = ctx.attributes.get("weights")
    if weights is not None and ctx.text("mode") != "TF":
        by_output = [weights[i] for i in ctx.integers("ngram_indexes") or () if i < len(weights)]
        if by_output != list(weights):
            return "weights that are not in the order of the outputs, of which runtimes differ"
    return None


def _pools(ctx: Context) -> dict[int, tuple[Tensor, Tensor]]:
    """The n-grams ``[count, n]`` and their outputs, by ``n``."""
    pool = torch.tensor(ctx.integers("pool_int64s") or ())
    outputs = torch.tensor(ctx.integers("ngram_indexes") or ())
    starts = [*(ctx.integers("ngram_counts") or ()), len(pool)]
    found, done = {}, 0
    for n, (start, end) in enumerate(pairwise(starts), 1):
        grams = pool[start:end].reshape(-1, n)
        found[n] = (grams, outputs[done : done + len(grams)])
        done += len(grams)
    return found


@onnx_op("TfIdfVectorizer", since=9, check=_check)
def tf_idf_vectorizer(ctx: Context, x: Tensor) -> Tensor:
    """How often known n-grams, also with gaps of equal length, occur in every row, weighted."""
    rows = x.reshape(-1, x.shape[-1]) if x.dim() else x.reshape(1, 1)
    size = max(ctx.integers("ngram_indexes") or ()) + 1
    counts = torch.zeros((len(rows), size), device=x.device)
    shortest, longest = ctx.integer("min_gram_length"), ctx.integer("max_gram_length")
    for n, (grams, outputs) in _pools(ctx).items():
        if not shortest <= n <= longest or not len(grams):
            continue
        grams, outputs = grams.to(x.device), outputs.to(x.device)
        for gap in range(1, 2 if n == 1 else ctx.integer("max_skip_count") + 2):
            places = rows.shape[1] - gap * (n - 1)
            if places <= 0:
                break
            match = torch.ones((len(rows), places, len(grams)), dtype=torch.bool, device=x.device)
            for item in range(n):
                tokens = rows.narrow(1, item * gap, places)
                match &= tokens.unsqueeze(-1) == grams[:, item]
            counts = counts.index_add(1, outputs, match.sum(dim=1, dtype=counts.dtype))
    mode = ctx.text("mode")
    if mode == "IDF":
        counts = counts.clamp_max(1)
    if mode != "TF" and ctx.has("weights"):
        counts = counts * torch.tensor(ctx.attributes["weights"], device=x.device)
    return counts.reshape(*x.shape[:-1], size)
