"""Finds the products of operators on sequences: recurrent networks and attention."""

from __future__ import annotations

import math

import onnx_ir as ir

from onnx_cgmq.cost.geometry import Axis, Side, contraction
from onnx_cgmq.cost.matrices import matrix_product
from onnx_cgmq.cost.product import (
    Product,
    Shape,
    Shapes,
    attribute_ints,
    axes_of,
    optional_shape,
    shape_of,
)
from onnx_cgmq.graph.nodes import int_attribute


def recurrent(node: ir.Node, shapes: Shapes) -> tuple[Product, ...]:
    """Finds the products of RNN, GRU and LSTM.

    The input ``X [steps, n, i]`` (layout 1: ``[n, steps, i]``) is multiplied with the weights
    ``W [directions, gates, i]``. The state inside the operator, which is float, is multiplied with
    the recurrent weights ``R [directions, gates, h]``.
    """
    x, w, r = (shape_of(shapes, index) for index in range(3))
    state = axes_of(["d", "steps", "n", "h"], [r[0], x[0], x[1], r[2]])
    return (
        Product(0, 1, contraction(axes_of(["steps", "n", "i"], x), axes_of(["d", "g", "i"], w))),
        Product(None, 2, contraction(state, axes_of(["d", "g", "h"], r)), "state"),
    )


def dynamic_lstm(node: ir.Node, shapes: Shapes) -> tuple[Product, ...]:
    """Finds the products of com.microsoft.DynamicQuantizeLSTM, whose weights are transposed."""
    w, r = ((shape[0], shape[2], shape[1]) for shape in (shape_of(shapes, 1), shape_of(shapes, 2)))
    usual = recurrent(node, (shape_of(shapes, 0), w, r))
    transposed = []
    for product in usual:
        directions, gates, inputs = product.sides[1].axes
        side = Side((directions, inputs, gates), product.sides[1].tap_shape)
        transposed.append(Product(product.a, product.b, (product.sides[0], side), product.label))
    return tuple(transposed)


def attention(node: ir.Node, shapes: Shapes) -> tuple[Product, ...]:
    """Finds the products of Attention.

    The scores are ``Q K^T``, and the output is the probabilities times ``V``. The probabilities are
    float. Entries that are masked count too. Keys and values of the past, if given, have products
    of their own.

    ``Q`` is ``[n, heads, q, d]`` or ``[n, q, heads d]``; ``K`` and ``V`` have one of these layouts
    too. Several heads of ``Q`` may share one head of ``K`` and ``V``.
    """
    q, k, v = (shape_of(shapes, index) for index in range(3))
    heads = int_attribute(node, "q_num_heads", 0) if len(q) == 3 else q[1]
    shared = int_attribute(node, "kv_num_heads", 0) if len(k) == 3 else k[1]
    if not heads or not shared or heads % shared:
        raise ValueError(f"{heads} heads of queries for {shared} of keys")
    queries = _heads(q, (("kv", shared), ("rep", heads // shared)), "q", "d")

    def probabilities(keys: int) -> list[Axis]:
        head: Axis = (("kv", shared), ("rep", heads // shared))
        return [(("n", q[0]),), head, (("q", q[-2]),), (("k", keys),)]

    found = [Product(0, 1, contraction(queries, _heads(k, (("kv", shared),), "k", "d")), "scores")]
    values = _heads(v, (("kv", shared),), "k", "v")
    found.append(Product(None, 2, contraction(probabilities(v[-2]), values), "values"))
    for index, label in ((4, "past_scores"), (5, "past_values")):
        past = shapes[index] if index < len(shapes) else None
        if past is None or not past[2]:
            continue
        if index == 4:
            sides = contraction(queries, _heads(past, (("kv", shared),), "k", "d"))
            found.append(Product(0, 4, sides, label))
        else:
            sides = contraction(probabilities(past[2]), _heads(past, (("kv", shared),), "k", "v"))
            found.append(Product(None, 5, sides, label))
    return tuple(found)


def _heads(shape: Shape, head: Axis, length: str, depth: str) -> list[Axis]:
    """Labels the axes of ``[n, heads, length, depth]`` or ``[n, length, heads depth]``.

    Args:
        shape: The shape, with four or three axes.
        head: Labels and sizes of the heads.
        length: Label of the positions in the sequence.
        depth: Label of the last axis.
    """
    if len(shape) == 4:
        return [(("n", shape[0]),), head, ((length, shape[2]),), ((depth, shape[3]),)]
    size = shape[2] // math.prod(part for _, part in head)
    return [(("n", shape[0]),), ((length, shape[1]),), (*head, (depth, size))]


def attention_with_projection(node: ir.Node, shapes: Shapes) -> tuple[Product, ...]:
    """Finds the products of com.microsoft.Attention and QAttention.

    These multiply ``x [n, q, i]`` with a weight ``[i, queries keys values]`` first. Queries, keys
    and values are then values inside the operator, which are float.
    """
    past = optional_shape(shapes, 8 if node.op_type == "QAttention" else 4)
    x, w = shape_of(shapes, 0), shape_of(shapes, 1)
    given = attribute_ints(node, "qkv_hidden_sizes", (w[1] // 3,) * 3)
    past_length = past[3] if past is not None else 0  # [keys and values, n, heads, past, d]
    inside = _float_products(x[0], x[1], x[1] + past_length, given[0] + given[2])
    return (Product(0, 1, matrix_product(x, w)), *inside)


def multi_head_attention(node: ir.Node, shapes: Shapes) -> tuple[Product, ...]:
    """Finds the products of com.microsoft.MultiHeadAttention and GroupQueryAttention.

    They count as float. Queries are ``[n, q, width]``, or ``[n, q, heads, 3, d]`` with keys and
    values in the same tensor. Keys are ``[n, k, width]``, ``[n, k, heads, 2, d]`` or
    ``[n, heads, k, d]``. Keys of the past come before these.
    """
    q, k = shape_of(shapes, 0), optional_shape(shapes, 1)
    grouped = node.op_type == "GroupQueryAttention"
    past = optional_shape(shapes, 3 if grouped else 6)
    heads = int_attribute(node, "num_heads", 1)
    width, keys = math.prod(q[2:]), q[1]
    if k is not None:
        keys = k[2] if len(k) == 4 else k[1]
    elif grouped:
        width = width * heads // (heads + 2 * int_attribute(node, "kv_num_heads", heads))
    else:
        width //= 3
    past_length = past[2] if past is not None else 0
    return _float_products(q[0], q[1], keys + past_length, 2 * width)


def _float_products(batch: int, queries: int, keys: int, width: int) -> tuple[Product, ...]:
    """Makes one float product that counts as many MACs as all products inside an attention.

    Args:
        batch: Size of the batch.
        queries: Number of queries.
        keys: Number of keys.
        width: MACs for each pair of query and key: the depths of keys and of values, summed over
            the heads.
    """
    count: list[Axis] = [(("all", batch * queries * keys * width),)]
    return (Product(None, None, contraction(count, count), "inside"),)
