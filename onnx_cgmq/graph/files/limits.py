"""How much may be made of a file: a small one must not take gigabytes.

What a file holds itself is never limited, so a large model loads whatever its size. Limited is what
is made of it: the text that a packed plan unpacks to, and the constants that its constant
expressions compute. Honest files make at most a few times their own weights (float of float16 or of
4-bit codes: 2 and 8 times; a step and a width for each element, as text: 3 times), and some tables
and masks.
"""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from onnx_cgmq.graph.files.load import tensors_of

_TIMES_ITS_TENSORS: Final = 16
_CONSTANTS: Final = 512 << 20
_METADATA: Final = 4 << 20


def most_constants(model: ir.Model) -> int:
    """Bytes that the constant expressions of a model may make, all of them together."""
    return _CONSTANTS + _TIMES_ITS_TENSORS * _stored(model)


def most_metadata(model: ir.Model) -> int:
    """Bytes to which packed metadata of a model may unpack."""
    return _METADATA + _TIMES_ITS_TENSORS * _stored(model)


def _stored(model: ir.Model) -> int:
    """Bytes of a model's tensors."""
    return sum(tensor.nbytes for _, tensor in tensors_of(model))
