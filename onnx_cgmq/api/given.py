"""Fits a plan that a user gives to the model of a run."""

from __future__ import annotations

import onnx_ir as ir

from onnx_cgmq.contract.bits import Role
from onnx_cgmq.contract.encodings import listed
from onnx_cgmq.contract.given_plan import GivenPlan
from onnx_cgmq.errors import ConfigError
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.settings.config import Config


def fit_plan(
    float_model: ir.Model, gated: ir.Model, config: Config
) -> tuple[ir.Model, Config, tuple[str, ...]]:
    """Fixes the widths of a given plan, if they are to be, and says what of it is not used.

    Args:
        float_model: The prepared float model.
        gated: The gated model that was made of it.
        config: The settings of the run.

    Returns:
        The gated model, settings that make it, and notes.

    Raises:
        ConfigError: The plan has no tensor of the model, or a width that the target does not have.
    """
    plan = config.plan
    if plan is None:
        return gated, config, ()
    roles = {name: spec.role for name, (_, spec) in quantizer_nodes(gated).items()}
    taken = [name for name in plan.encodings if roles.get(name, Role.BIAS) is not Role.BIAS]
    if not taken:
        raise ConfigError(
            f"{plan.source} has none of the tensors that are quantized: it has "
            f"{listed(plan.encodings)}, but the model has {listed(roles)}; give a plan of this "
            "model, with the names of its tensors"
        )
    notes = _notes(plan, roles)
    if config.fixed_plan is None:
        return gated, config, notes
    named = {pattern for pattern, _ in config.choices}
    widths = {name: plan.encodings[name].width for name in taken if name not in named}
    config = config.model_copy(update={"fix": {**config.fix, **widths}})
    return insert_gates(float_model, config), config, notes


def _notes(plan: GivenPlan, roles: dict[str, Role]) -> tuple[str, ...]:
    """Says what of the plan is not used, and which tensors it leaves open."""
    biases = [name for name in plan.encodings if roles.get(name) is Role.BIAS]
    foreign = [name for name in plan.encodings if name not in roles]
    quantized = [name for name, role in roles.items() if role is not Role.BIAS]
    missing = [name for name in quantized if name not in plan.encodings]
    notes = list(plan.notes)
    if biases:
        notes.append(f"{plan.source}: {listed(biases)} not taken: a bias follows its operands")
    if foreign:
        notes.append(
            f"{plan.source}: {listed(foreign)} not taken: no quantizer is there in this run"
        )
    if missing:
        notes.append(
            f"{plan.source} says nothing of {listed(missing)}: the run chooses these widths; "
            "'fix' (--fix NAME=8) and 'keep_float' (--keep-float NAME) choose them for it"
        )
    return tuple(notes)
