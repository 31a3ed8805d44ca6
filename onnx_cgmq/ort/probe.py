"""Runs a model in onnxruntime for the sake of values inside it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from threading import Timer
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common

from onnx_cgmq.graph.files.limits import most_constants
from onnx_cgmq.graph.input_shapes import graph_inputs
from onnx_cgmq.ort.session import LogLevel, new_session

if TYPE_CHECKING:
    from onnx_cgmq.ort.session import Session

Arrays = Mapping[str, npt.NDArray[Any]]

_SECONDS: Final = 60.0
"""How long a run may take: a damaged file may have a loop that does not end. Our choice."""


def made_up(model: ir.Model, shapes: Mapping[str, Sequence[int | None]], fill: int) -> Arrays:
    """Makes up numbers for the inputs of a model.

    Args:
        model: The model.
        shapes: Shapes by input name; an open size is 1.
        fill: 0 or 1: two fills differ in their numbers, their sum, and how many are 0.
    """
    made = {}
    for name, value in graph_inputs(model).items():
        if value.dtype is None or value.dtype is ir.DataType.UNDEFINED:
            continue
        shape = [1 if n is None else n for n in shapes[name]]
        # Indexes start at 0, but loops had better run, and sums not be 0.
        floats = value.dtype.is_floating_point()
        made[name] = array = np.full(shape, 1 + 2 * fill if floats else fill, value.dtype.numpy())
        if floats and fill:
            array.reshape(-1)[1::2] = 0
    return made


def run_values(
    model: ir.Model, values: Iterable[ir.Value], inputs: Arrays
) -> dict[ir.Value, npt.NDArray[Any]]:
    """Values of one run; empty if onnxruntime can't run the model, or it would take gigabytes."""
    probe, wanted = model.clone(), {str(value.name): value for value in values}
    made = {str(value.name): value for node in probe.graph for value in node.outputs}
    probe.graph.outputs.clear()
    probe.graph.outputs.extend(made[name] for name in wanted)
    common.RemoveUnusedNodesPass()(probe)  # what comes behind may fail on numbers that are made up
    if _is_huge(probe):
        return {}
    try:
        ir.external_data.load_to_model(probe)
        content = ir.serde.serialize_model(probe).SerializeToString()
        session = new_session(content, optimize=False, log_level=LogLevel.SILENT)
        arrays = _run_in_time(session, list(wanted), inputs)
    except Exception:  # onnxruntime's errors have no common base, nor has protobuf's
        return {}
    found = zip(wanted.values(), arrays, strict=True)
    return {value: array for value, array in found if isinstance(array, np.ndarray)}


def _is_huge(model: ir.Model) -> bool:
    """Whether a value is known to be larger than what may be made of a file."""
    most = most_constants(model)
    return any(
        value.shape.is_static()
        and math.prod(size for size in value.shape if isinstance(size, int)) > most
        for node in model.graph.all_nodes()
        for value in node.outputs
        if value.shape is not None
    )


def _run_in_time(session: Session, wanted: list[str], inputs: Arrays) -> list[Any]:
    """Runs a session, which fails if that takes too long."""
    import onnxruntime as ort

    options = ort.RunOptions()
    timer = Timer(_SECONDS, setattr, (options, "terminate", True))
    timer.start()
    try:
        found: list[Any] = session.run(wanted, dict(inputs), options)
        return found
    finally:
        timer.cancel()
