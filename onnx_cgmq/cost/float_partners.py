"""Notes on tensors that bounds treat in ways which a user would hardly expect.

A bound narrows what is multiplied with a value that counts 32 bits, and leaves wide what nothing
multiplies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from onnx_cgmq.contract.bits import FLOAT_BITS, INTEGER_KERNEL_BITS, Ladder, Role
from onnx_cgmq.cost.bops import op_bops
from onnx_cgmq.cost.bound import Bounds, CostKind
from onnx_cgmq.cost.model import CostModel


def float_partner_notes(model: CostModel, bounds: Bounds) -> Iterator[str]:
    """Writes a note for each bound on bit operations that 8 bits everywhere would break.

    The state inside a recurrent operator is float, and so are the probabilities inside Attention.
    What they are multiplied with is narrowed for the sake of the bound, although such a kernel is
    float and gets no faster.

    Args:
        model: The cost model of a gated graph.
        bounds: The bounds of the run.

    Raises:
        BoundError: A bound can't be read.
    """
    widths = {
        name: np.full(spec.gate_shape, _at_most_8(spec.ladder), dtype=np.int64)
        for name, spec in model.specs.items()
    }
    inside = {
        tensor: op
        for op in model.ops
        for tensor, other in ((op.a.name, op.b.name), (op.b.name, op.a.name))
        if not other and tensor in widths
    }
    for item in model.budget(bounds).constraints:
        cost = item.cost.total(widths)
        if item.bound.kind is not CostKind.BOPS or item.bound.is_satisfied_by(cost) or not inside:
            continue
        named = ", ".join(f"'{tensor}' ({op.op_type} '{op.node}')" for tensor, op in inside.items())
        part = sum(op_bops(op, widths) for op in inside.values())
        share = 100 * part / float(item.cost.float_cost)
        yield (
            f"{named} may get few bits: it is multiplied with a value inside the operator, which "
            f"is float and counts {FLOAT_BITS} bits. At {INTEGER_KERNEL_BITS} bits this costs "
            f"{share:.3g}% of the float model's bit operations, and the bound is "
            f"{item.bound.text!r}. The kernel is float whatever the widths, and gets no faster: "
            "raise the bound, or limit the size instead, for example 'size:25%'"
        )


def unbounded_tables(model: CostModel, bounds: Bounds) -> Iterator[str]:
    """Writes a note on embedding tables that may stay wide because no bound counts them.

    Nothing multiplies a table, so only a bound on the size narrows it.

    Args:
        model: The cost model of a gated graph.
        bounds: The bounds of the run.

    Raises:
        BoundError: A bound can't be read.
    """
    kinds = {item.bound.kind for item in model.budget(bounds).constraints}
    multiplied = {operand.name for op in model.ops for operand in (op.a, op.b)}
    tables = [
        spec
        for spec in model.specs.values()
        if spec.role is Role.WEIGHT
        and spec.tensor not in multiplied
        and spec.ladder.widths[0] <= INTEGER_KERNEL_BITS < spec.ladder.widths[-1]
    ]
    if not tables or CostKind.SIZE in kinds:
        return
    size = sum(math.prod(spec.shape) for spec in tables) * FLOAT_BITS // 8
    named = ", ".join(f"'{spec.tensor}'" for spec in tables)
    yield (
        f"no bound counts the embedding tables {named}, so they stay at "
        f"{max(spec.ladder.widths[-1] for spec in tables)} bits ({size:,} bytes as floats): bound "
        "the size as well, for example 'size:25%', or fix their width"
    )


def _at_most_8(ladder: Ladder) -> int:
    """The widest width of a ladder for which there are integer kernels, else its narrowest."""
    return max((w for w in ladder.widths if w <= INTEGER_KERNEL_BITS), default=ladder.widths[0])
