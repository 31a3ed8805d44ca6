"""Replaces onnxruntime's Attention and MultiHeadAttention by matrix products and a softmax.

``docs/ContribOperators.md`` in the repository of onnxruntime defines both operators.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_cgmq.graph.emitter import Emitter, optional, rank_of, used_outputs
from onnx_cgmq.graph.nodes import float_attribute, int_attribute

_MASKED_SCORE: Final = -10000.0
"""The default of ``mask_filter_value``, which is added to the scores of masked keys."""

_LOWEST: Final = float(np.finfo(np.float32).min)
_SWAP_HEADS: Final = {"perm": [0, 2, 1, 3]}
_TRANSPOSE_MATRICES: Final = {"perm": [0, 1, 3, 2]}


def attention(emit: Emitter, node: ir.Node) -> list[ir.Value | None] | None:
    """Replaces Attention, which first projects its input to queries, keys and values.

    Returns:
        The output and, if it is read, the present keys and values; ``None`` if standard operators
        can't express the node.
    """
    x, weight, bias, mask, past, score_bias, shared = (optional(node, index) for index in range(7))
    sizes = _projected_sizes(node, weight)
    flags = ("do_rotary", "past_present_share_buffer")
    if sizes is None or shared is not None or any(int_attribute(node, name, 0) for name in flags):
        return None
    if x is None or not _is_supported_mask(mask):
        return None
    projected = emit("MatMul", x, weight, rank=3)
    projected = projected if bias is None else emit("Add", projected, bias, rank=3)
    heads = int_attribute(node, "num_heads", 0)
    parts = _split(emit, projected, sizes, axis=-1)
    q, k, v = (_split_heads(emit, part, heads) for part in parts)
    if past is not None:
        k = _append_to_past(emit, _take_row(emit, past, 0), k)
        v = _append_to_past(emit, _take_row(emit, past, 1), v)
    y = _attend(emit, node, (q, k, v), sizes[0] // heads, mask, score_bias, past is not None)
    if 1 not in used_outputs(node):
        return [y]
    zero = emit.constant([0], np.int64)
    both = (emit("Unsqueeze", state, zero, rank=5) for state in (k, v))
    return [y, emit("Concat", *both, rank=5, attributes={"axis": 0})]


def multi_head_attention(emit: Emitter, node: ir.Node) -> list[ir.Value | None] | None:
    """Replaces MultiHeadAttention of queries, keys and values ``[batch, length, width]``.

    Returns:
        The output and the present keys and values; ``None`` if standard operators can't express
        the node.
    """
    query, key, value, bias, mask, score_bias, past_key, past_value, *unsupported = (
        optional(node, index) for index in range(10)
    )
    operands = (query, key, value)
    sizes = [_last_size(operand) for operand in operands]
    if any(other is not None for other in unsupported) or 3 in used_outputs(node):
        return None
    if not _is_supported_mask(mask) or any(rank_of(operand) != 3 for operand in operands):
        return None
    width = sizes[0]
    if width is None or (bias is not None and None in sizes):
        return None
    heads = int_attribute(node, "num_heads", 0)
    parts = list(operands)
    if bias is not None:
        biases = _split(emit, bias, [size or 0 for size in sizes], axis=0)
        parts = [emit("Add", *pair, rank=3) for pair in zip(operands, biases, strict=True)]
    q, k, v = (_split_heads(emit, part, heads) for part in parts)
    past = past_key is not None and past_value is not None
    if past:
        k, v = _append_to_past(emit, past_key, k), _append_to_past(emit, past_value, v)
    return [_attend(emit, node, (q, k, v), width // heads, mask, score_bias, past), k, v]


def _attend(
    emit: Emitter,
    node: ir.Node,
    heads: tuple[ir.Value, ir.Value, ir.Value],
    size: int,
    mask: ir.Value | None,
    score_bias: ir.Value | None,
    past: bool,
) -> ir.Value:
    """Emits ``softmax(scale * q k^T + masks) v`` and joins the heads (arXiv 1706.03762).

    Args:
        emit: Emits the nodes.
        node: The node that they replace.
        heads: Queries ``q``, keys ``k`` and values ``v``, each ``[batch, heads, length, size]``.
        size: The size of a head of the queries. By default ``scale`` is ``1 / sqrt(size)``.
        mask: The mask of the keys; see :func:`_hidden_positions`.
        score_bias: Numbers to add to the scores, ``[batch, heads, queries, keys]``.
        past: Whether the keys begin with those of the past.
    """
    q, k, v = heads
    scale = float_attribute(node, "scale", 0.0) or 1 / math.sqrt(size)
    transposed = emit("Transpose", k, rank=4, attributes=_TRANSPOSE_MATRICES)
    scores = emit("MatMul", q, transposed, rank=4)
    scores = emit("Mul", scores, emit.constant(scale), rank=4)
    if score_bias is not None:
        scores = emit("Add", scores, score_bias, rank=4)
    if mask is not None:
        lowered = emit.constant(float_attribute(node, "mask_filter_value", _MASKED_SCORE))
        hidden = _hidden_positions(emit, mask, q, k)
        penalty = emit("Where", hidden, lowered, emit.constant(0.0), rank=4)
        scores = emit("Add", scores, penalty, rank=4)
    if int_attribute(node, "unidirectional", 0):
        seen = _visible_positions(emit, q, k, past)
        scores = emit("Where", seen, scores, emit.constant(_LOWEST), rank=4)
    shares = emit("Softmax", scores, rank=4, attributes={"axis": -1})
    joined = emit("Transpose", emit("MatMul", shares, v, rank=4), rank=4, attributes=_SWAP_HEADS)
    return emit("Reshape", joined, emit.constant([0, 0, -1], np.int64), rank=3)


def _hidden_positions(emit: Emitter, mask: ir.Value, q: ir.Value, k: ir.Value) -> ir.Value:
    """Returns where a mask hides keys, as truth values.

    They broadcast to ``[batch, heads, queries, keys]``.

    Args:
        emit: Emits the nodes.
        mask: ``[batch, keys]`` or ``[batch, queries, keys]``, above 0 where a key is visible; or
            the ends of the sequences, ``[batch]``; or first all ends and then all starts.
        q: Queries.
        k: Keys.
    """
    if rank_of(mask) != 1:
        axes = [1, 2] if rank_of(mask) == 2 else [1]
        mask = emit("Unsqueeze", mask, emit.constant(axes, np.int64), rank=4)
        return emit("LessOrEqual", mask, emit.constant(0, np.int32), rank=4)
    batch = emit("Shape", q, rank=1, attributes={"start": 0, "end": 1})
    ones = emit.constant([1, 1, 1], np.int64)
    shape = emit("Concat", emit.constant([-1], np.int64), batch, ones, attributes={"axis": 0})
    wide = emit("Cast", mask, rank=1, attributes={"to": ir.DataType.INT64})
    rows = emit("Reshape", wide, shape, rank=5)
    # If there is only a row of ends, the last row is that one. A factor of 0 makes starts of it.
    second = emit("Sub", _length(emit, rows, 0), emit.constant(1, np.int64), rank=0)
    starts = emit("Mul", _take_row(emit, rows, -1), second, rank=4)
    keys = _positions(emit, _length(emit, k, 2))
    behind = emit("GreaterOrEqual", keys, _take_row(emit, rows, 0), rank=4)
    return emit("Or", behind, emit("Less", keys, starts, rank=4), rank=4)


def _visible_positions(emit: Emitter, q: ir.Value, k: ir.Value, past: bool) -> ir.Value:
    """Returns which keys a query sees in causal attention, as truth values ``[queries, keys]``.

    With a past there are more keys than queries; the last query then sees the last key.
    """
    queries, keys = _length(emit, q, 2), _length(emit, k, 2)
    position = _positions(emit, queries)
    if past:
        position = emit("Add", position, emit("Sub", keys, queries, rank=0), rank=1)
    position = emit("Unsqueeze", position, emit.constant([1], np.int64), rank=2)
    return emit("LessOrEqual", _positions(emit, keys), position, rank=2)


def _length(emit: Emitter, x: ir.Value, axis: int) -> ir.Value:
    """Returns the length of an axis, as a scalar value of the graph."""
    shape = emit("Shape", x, rank=1, attributes={"start": axis, "end": axis + 1})
    return emit("Squeeze", shape, rank=0)


def _positions(emit: Emitter, length: ir.Value) -> ir.Value:
    zero, one = emit.constant(0, np.int64), emit.constant(1, np.int64)
    return emit("Range", zero, length, one, rank=1)


def _split(emit: Emitter, x: ir.Value, sizes: list[int], axis: int) -> tuple[ir.Value, ...]:
    first = emit(
        "Split", x, emit.constant(sizes, np.int64), outputs=len(sizes), attributes={"axis": axis}
    )
    node = first.producer()
    assert node is not None
    return tuple(node.outputs)


def _split_heads(emit: Emitter, x: ir.Value | None, heads: int) -> ir.Value:
    """Reshapes ``[batch, length, heads * size]`` to ``[batch, heads, length, size]``."""
    shape = emit.constant([0, 0, heads, -1], np.int64)
    return emit("Transpose", emit("Reshape", x, shape, rank=4), rank=4, attributes=_SWAP_HEADS)


def _take_row(emit: Emitter, x: ir.Value, index: int) -> ir.Value:
    row = emit.constant(index, np.int64)
    return emit("Gather", x, row, rank=4, attributes={"axis": 0})


def _append_to_past(emit: Emitter, past: ir.Value | None, new: ir.Value) -> ir.Value:
    return emit("Concat", past, new, rank=4, attributes={"axis": 2})


def _is_supported_mask(mask: ir.Value | None) -> bool:
    return mask is None or rank_of(mask) in (1, 2, 3)


def _projected_sizes(node: ir.Node, weight: ir.Value | None) -> list[int] | None:
    """Returns the widths of queries, keys and values, or ``None`` if they are unknown."""
    given = node.attributes.get("qkv_hidden_sizes")
    if given is not None:
        return list(given.as_ints())
    width = _last_size(weight)
    return None if width is None else [width // 3] * 3


def _last_size(x: ir.Value | None) -> int | None:
    """Returns the size of the last axis, or ``None`` if it is unknown."""
    size = None if x is None or not x.shape else x.shape[-1]
    return size if isinstance(size, int) else None
