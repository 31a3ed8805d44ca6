"""Measures the range and the mean square of each channel of values, in runs in onnxruntime."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.data.samples import Batch
from onnx_cgmq.ort.session import open_session, run_batch

Floats = npt.NDArray[np.float64]

_REDUCTIONS: Final = ("ReduceMin", "ReduceMax", "ReduceSumSquare")
"""They keep all axes. So their results have a first axis of size 1, and are no rows of a batch."""


@dataclass(frozen=True)
class ChannelStatistics:
    """What the channels of a value reach, one number for each entry along the channel axis.

    Attributes:
        low: The smallest element.
        high: The largest element.
        mean_square: The mean of the squares.
    """

    low: Floats
    high: Floats
    mean_square: Floats


def channel_statistics(
    model: ir.Model, axes: Mapping[ir.Value, int], batches: Iterable[Batch]
) -> dict[ir.Value, ChannelStatistics]:
    """Measures values of a model. Only the results leave onnxruntime, so this takes little memory.

    Args:
        model: The model, of opset 18 or newer.
        axes: The values of its main graph, of known rank, and the channel axis of each.
        batches: The data, at least one batch.

    Returns:
        The statistics of each value; not finite where its elements are not.

    Raises:
        ModelError: onnxruntime can't load or run the model.
    """
    session = open_session(_probe(model, axes))
    runs = [run_batch(session, batch) for batch in batches]
    found = {}
    for index, value in enumerate(axes):
        low, high, squares, sizes = (
            np.array([run[_name(index, what)].reshape(-1) for run in runs], np.float64)
            for what in (*_REDUCTIONS, "Size")
        )
        share = low.shape[1] / sizes.sum()
        found[value] = ChannelStatistics(low.min(0), high.max(0), squares.sum(0) * share)
    return found


def _probe(model: ir.Model, axes: Mapping[ir.Value, int]) -> ir.Model:
    """A model whose outputs are what the values of another one reach in a batch."""
    probe = model.clone()
    graph = probe.graph
    made = {value.name: value for node in graph for value in node.outputs}
    graph.outputs.clear()
    for index, (source, axis) in enumerate(axes.items()):
        value = made[source.name]
        assert value.shape is not None
        others = np.array([i for i in range(len(value.shape)) if i != axis], np.int64)
        over = ir.Value(name=_name(index, "axes"), const_value=ir.tensor(others))
        over.type, over.shape = ir.TensorType(ir.DataType.INT64), ir.Shape(others.shape)
        graph.register_initializer(over)
        for what in (*_REDUCTIONS, "Size"):
            node = ir.node(what, [value] if what == "Size" else [value, over])
            result = node.outputs[0]
            result.name = _name(index, what)
            result.dtype = ir.DataType.INT64 if what == "Size" else ir.DataType.FLOAT
            graph.append(node)
            graph.outputs.append(result)
    return probe


def _name(index: int, what: str) -> str:
    return f"onnx_cgmq.channels.{index}.{what}"
