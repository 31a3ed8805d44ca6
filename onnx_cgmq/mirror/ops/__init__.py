"""Operators of the mirror, one family per file; importing this package registers them all."""

from onnx_cgmq.mirror.ops import (  # noqa: F401
    activation,
    attention,
    cast,
    constant,
    convolution,
    elementwise,
    incremental,
    indexing,
    linear,
    logic,
    normalization,
    pad,
    pool,
    quantize,
    recurrent,
    reduction,
    resize,
    rotary,
    shape,
    softmax,
)
