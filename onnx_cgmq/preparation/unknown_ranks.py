"""Finishes the preparation of models whose ranks only a run in onnxruntime tells."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from onnx_cgmq.ort.probe import Arrays
from onnx_cgmq.ort.ranks import open_ranks, set_ranks
from onnx_cgmq.preparation.fold_affine import fold_affine


def find_ranks(model: ir.Model, samples: Iterable[Arrays] = ()) -> None:
    """Gives operands of unknown rank their shape, in place, and folds what could not be before.

    A bias that is an Add of its own becomes part of a MatMul only where that has two axes.

    Args:
        model: A prepared model.
        samples: See :func:`~onnx_cgmq.ort.ranks.set_ranks`; read only if a rank is unknown.
    """
    if open_ranks(model):
        set_ranks(model, list(samples))
        fold_affine(model)
