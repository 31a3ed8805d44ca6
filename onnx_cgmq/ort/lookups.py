"""Finds samples whose indices lie beyond the tables in which the model looks them up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnx_cgmq.contract.identifiers import GATED_DOMAIN
from onnx_cgmq.data.samples import Batch, Samples
from onnx_cgmq.errors import DataError
from onnx_cgmq.graph.input_shapes import graph_inputs
from onnx_cgmq.graph.nodes import int_attribute, node_key, standard_op
from onnx_cgmq.graph.operators import Dependence, dependence_of
from onnx_cgmq.ort.session import LogLevel, new_session
from onnx_cgmq.ort.sizes import Sizes

if TYPE_CHECKING:
    from onnx_cgmq.ort.session import Session

_BATCH_SIZE = 256
_LOOKUPS = ("Gather", "GatherElements")

_FLOATS = frozenset({""})
"""Stands among names of inputs for floats, from which no index is computed before the run."""


def check_lookups(model: ir.Model, samples: Samples) -> None:
    """Checks all samples before any of them stops a run.

    Only indices that a model computes of its integer inputs and of sizes are known before it runs.

    Raises:
        DataError: An index is outside of its table; the message names inputs, sample, index and
            table.
    """
    lookups = tuple(_lookups(model))
    if not lookups:
        return
    computed = [lookup.indices for lookup in lookups if lookup.indices not in graph_inputs(model)]
    session = _session(model, computed) if computed else None
    for batch in samples.batches(_BATCH_SIZE):
        values = dict(batch.inputs)
        if session is not None:
            values.update(_run(session, computed, batch))
        for lookup in lookups:
            if lookup.indices in values:
                lookup.check(values[lookup.indices], batch, samples)


@dataclass(frozen=True)
class _Lookup:
    """A node that looks rows up.

    Attributes:
        node: Operator and name.
        table: Name of the table.
        rows: How many rows the table has.
        indices: Name of the value that has the indices.
        inputs: Names of the inputs that they are computed of.
    """

    node: str
    table: str
    rows: int
    indices: str
    inputs: tuple[str, ...]

    def check(self, indices: npt.NDArray[Any], batch: Batch, samples: Samples) -> None:
        wrong = (indices < -self.rows) | (indices >= self.rows)
        if not wrong.any():
            return
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        by_sample = bool(place) and len(indices) == len(batch.indices)
        sample = samples.indices[batch.indices[place[0] if by_sample else 0]]
        names = ", ".join(map(repr, self.inputs))
        of = "in" if self.inputs == (self.indices,) else "computed of"
        raise DataError(
            f"input {names}: the index {indices[place]} {of} sample {sample} is outside of the "
            f"table {self.table!r} ({self.node}), which has {self.rows} rows (0 to "
            f"{self.rows - 1}); correct the sample, or give the model that the data is for"
        )


def _lookups(model: ir.Model) -> Iterator[_Lookup]:
    nodes = [node for node in model.graph if standard_op(node) in _LOOKUPS]
    if not nodes:
        return
    sources, sizes = _sources(model), Sizes(model)
    for node in nodes:
        table, indices = node.inputs
        if table is None or indices is None or sources.get(table, _FLOATS) - _FLOATS:
            continue
        names = sources.get(indices, frozenset())
        shape = sizes.shape(table)
        rows = shape[int_attribute(node, "axis", 0)] if shape else None
        if names and not names & _FLOATS and rows is not None:
            inputs = tuple(name for name in graph_inputs(model) if name in names)
            label = f"{node.op_type} '{node.name or node_key(node)}'"
            yield _Lookup(label, _table_name(table), rows, str(indices.name), inputs)


def _sources(model: ir.Model) -> dict[ir.Value, frozenset[str]]:
    """Names of the inputs that decide a value, with :data:`_FLOATS` if floats do, or subgraphs."""
    found = {
        value: frozenset({name}) | _floats_of(value) for name, value in graph_inputs(model).items()
    }
    for node in model.graph:
        made: frozenset[str] = frozenset()
        for value in node.inputs:
            if value is not None and value.is_graph_input() and _reads_shapes(node):
                made |= frozenset({str(value.name)})
            elif value is not None:
                made |= found.get(value, _floats_of(value))
        if any(attribute.type is ir.AttributeType.GRAPH for attribute in node.attributes.values()):
            made |= _FLOATS.union(graph_inputs(model))
        found.update((value, made) for value in node.outputs)
    return found


def _floats_of(value: ir.Value) -> frozenset[str]:
    return frozenset() if value.dtype is not None and value.dtype.is_integer() else _FLOATS


def _reads_shapes(node: ir.Node) -> bool:
    return dependence_of(node) is Dependence.ON_SHAPES


def _table_name(table: ir.Value) -> str:
    """The name of a table, also behind its quantizer."""
    quantizer = table.producer()
    if quantizer is not None and quantizer.domain == GATED_DOMAIN and quantizer.inputs[0]:
        table = quantizer.inputs[0]
    return str(table.name)


def _session(model: ir.Model, values: list[str]) -> Session | None:
    """Opens what computes some values; ``None`` if onnxruntime can't."""
    part = model.clone()
    made = {str(value.name): value for node in part.graph for value in node.outputs}
    part.graph.outputs.clear()
    part.graph.outputs.extend(made[name] for name in dict.fromkeys(values))
    RemoveUnusedNodesPass()(part)
    try:
        ir.external_data.load_to_model(part)
        content = ir.serde.serialize_model(part).SerializeToString()
        return new_session(content, optimize=False, log_level=LogLevel.SILENT)
    except Exception:  # onnxruntime's errors have no common base, nor has protobuf's
        return None


def _run(session: Session, values: list[str], batch: Batch) -> dict[str, npt.NDArray[Any]]:
    """Values of a batch; none if onnxruntime can't run it, which the run itself will say."""
    names = [*dict.fromkeys(values)]
    wanted = {value.name for value in session.get_inputs()}
    feed = {name: array for name, array in batch.inputs.items() if name in wanted}
    try:
        return dict(zip(names, session.run(names, feed), strict=True))
    except Exception:  # onnxruntime's errors have no common base
        return {}
