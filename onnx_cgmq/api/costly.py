"""Leaves out the carried quantizers that cost too much accuracy."""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from onnx_cgmq.cost.bound import Bounds, CostKind
from onnx_cgmq.cost.model import CostModel
from onnx_cgmq.data.samples import Samples
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.settings import load_target
from onnx_cgmq.settings.config import Config

_COUNT_ACTIVATIONS: Final = {CostKind.TABLE, CostKind.ACTIVATIONS}
"""Bounds that a float activation makes harder to keep."""


def leave_out_costly(
    float_model: ir.Model, gated: ir.Model, config: Config, bound: Bounds, data: Samples
) -> tuple[ir.Model, Config, str]:
    """Inserts gates again, without the carried quantizers that cost too much.

    Those that the settings name stay, and all stay under a bound that counts activations.

    Args:
        float_model: The prepared float model.
        gated: The gated model that was made of it.
        config: The settings of the run.
        bound: The bounds of the run.
        data: The samples to measure on.

    Returns:
        The gated model, settings that make it, and a note; empty if nothing was left out.

    Raises:
        BoundError: A bound can't be read.
        ConfigError: There is no such device as the settings name.
    """
    costs = CostModel.of(gated, load_target(config.target).cost)
    kinds = {item.bound.kind for item in costs.budget(bound).constraints}
    if not config.integer_kernels or kinds & _COUNT_ACTIVATIONS:
        return gated, config, ""

    from onnx_cgmq.learn.costly_quantizers import costly_quantizers  # loads torch
    from onnx_cgmq.mirror.devices import chosen_device
    from onnx_cgmq.mirror.module import Mirror

    operands = {operand.name for op in costs.ops for operand in (op.a, op.b)}
    named = {pattern for pattern, _ in config.choices}
    mirror = Mirror(gated).to(chosen_device(config.device))
    found = costly_quantizers(mirror, operands, data)
    names = tuple(name for name in found if name not in named)
    if not names:
        return gated, config, ""
    config = config.model_copy(update={"keep_float": (*config.keep_float, *names)})
    note = (
        f"not quantized: {', '.join(repr(name) for name in names)}; quantizers there would only "
        "serve integer kernels, and cost too much accuracy for that. The kernels that make these "
        "values run in floats; to have them in integers, name the values in 'fix' (--fix NAME=8)"
    )
    return insert_gates(float_model, config), config, note
