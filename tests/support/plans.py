"""Plans for gated models without training: the arithmetic of the contract, in numpy."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_cgmq.contract.bits import FLOAT_BITS, Granularity, GridForm, Role, code_range, intervals
from onnx_cgmq.contract.form import Form
from onnx_cgmq.contract.plan import BitPlan, TensorPlan
from onnx_cgmq.cost.model import CostModel
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.writing.codes import own_codes

OF_ANY_WIDTH = tuple(form for form in Form if form is not Form.TENSORRT)
"""The forms that take any width; ``tensorrt`` has tests of its own."""

FIXED_FORMS = [form for form in GridForm if form is not GridForm.DYNAMIC]
"""The grids whose range is the same in all runs."""


def set_widths(gated: ir.Model, widths: dict[str, np.ndarray]) -> None:
    """Sets the gates of a gated model, in place, so that they select widths."""
    for name, (node, spec) in quantizer_nodes(gated).items():
        gate = np.vectorize(spec.ladder.gate_of, otypes=[np.float32])(widths[name])
        set_initializer(node.inputs[-1], gate.reshape(spec.gate_shape))


def set_initializer(value: ir.Value, array: np.ndarray) -> None:
    value.const_value = ir.tensor(np.asarray(array, dtype=np.float32), name=value.name)


def draw_widths(gated: ir.Model, rng, largest_mixed: int = 8) -> dict[str, np.ndarray]:
    """Random widths for every gate; tensors with many gates mix widths up to ``largest_mixed``."""
    widths = {}
    for name, (_, spec) in quantizer_nodes(gated).items():
        choice = spec.ladder.widths
        if spec.gate_shape and spec.role is not Role.BIAS:
            choice = [width for width in choice if width <= largest_mixed]
        widths[name] = rng.choice(choice, size=spec.gate_shape)
    return widths


def make_plan(gated: ir.Model, widths: dict[str, np.ndarray] | None = None) -> BitPlan:
    """The plan of a gated model whose gates are as :func:`set_widths` sets them.

    Weights with ``channel`` and ``element`` widths are narrowed to what their codes need, in the
    gated model as well.
    """
    quantizers = quantizer_nodes(gated)
    if widths is None:
        widths = {n: s.ladder.widths_of(_array(q.inputs[-1])) for n, (q, s) in quantizers.items()}
    widths = {name: np.asarray(array, dtype=np.int64) for name, array in widths.items()}
    tensors = {}
    for name, (node, spec) in quantizers.items():
        tensor = _tensor_plan(node, spec, widths[name])
        if spec.role is Role.WEIGHT:
            narrow = _narrowed(node, spec, tensor)
            if not np.array_equal(narrow, widths[name]):
                widths[name] = narrow
                tensor = _tensor_plan(node, spec, narrow, tensor)
        tensors[name] = tensor
    set_widths(gated, widths)
    return BitPlan(tensors=tensors, cost=CostModel.of(gated).plan_cost(widths))


def _array(value: ir.Value) -> np.ndarray:
    return value.const_value.numpy()


def _tensor_plan(node, spec, widths, wider: TensorPlan | None = None) -> TensorPlan:
    has_grid = (widths > 0) & (widths < FLOAT_BITS)
    high = _array(node.inputs[-2])
    low = -high if spec.form.is_symmetric else np.zeros_like(high)
    if spec.form is GridForm.AFFINE:
        low = _array(node.inputs[1])
    quantized = spec.ladder.quantized or (8,)
    index = np.searchsorted(quantized, np.clip(widths, quantized[0], quantized[-1]))
    shared = spec.granularity is Granularity.ELEMENT
    if shared:
        low, high = low[0], high[0]
    elif spec.channel_ranges:
        low, high = low[int(index)], high[int(index)]
    else:
        low = np.take_along_axis(low, index[None], 0)[0]
        high = np.take_along_axis(high, index[None], 0)[0]
    count = np.vectorize(
        lambda w: np.float32(intervals(w, spec.form) if w else 1), otypes=[np.float32]
    )(np.where(has_grid, widths, 0))
    step = np.where(has_grid, (high - low).astype(np.float32) / count, 0).astype(np.float32)
    zero_point = np.zeros(step.shape, dtype=np.int64)
    if spec.form is GridForm.AFFINE:
        safe = np.where(step > 0, step, np.float32(1))
        zero_point = np.clip(np.round(-low / safe), 0, count).astype(np.int64) * has_grid
    return TensorPlan(
        name=spec.tensor,
        role=spec.role,
        form=spec.form,
        granularity=spec.granularity,
        shape=spec.shape,
        axis=spec.axis,
        block=spec.block,
        widths=widths,
        low=low,
        high=high,
        step=step,
        zero_point=zero_point,
        values=_array(node.inputs[0]) if spec.role is not Role.ACTIVATION else None,
    )


def _narrowed(node, spec, tensor: TensorPlan) -> np.ndarray:
    """Widths that the codes of a weight need (element: the coarsest nested grid)."""
    codes = own_codes(tensor, _array(node.inputs[0]))
    narrow = tensor.widths.copy()
    if spec.granularity is not Granularity.ELEMENT:
        return narrow
    for fine in sorted(spec.ladder.quantized):
        here = tensor.widths == fine
        for coarse in sorted((w for w in spec.ladder.quantized if w < fine), reverse=True):
            factor = intervals(fine) // intervals(coarse)
            largest = factor * code_range(coarse, GridForm.SYMMETRIC)[1]
            narrow[here & (codes % factor == 0) & (np.abs(codes) <= largest)] = coarse
    if spec.ladder.prunes:
        narrow[(codes == 0) & (tensor.widths < FLOAT_BITS)] = 0
    return narrow


def assert_same_plan(one: BitPlan, other: BitPlan, tolerance: float = 1e-5) -> None:
    """Compares plans: widths exactly, ranges and learned values but for rounding."""
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():
        found = other.tensors[name]
        np.testing.assert_array_equal(found.widths, tensor.widths, name)
        for part in ("low", "high", "values"):
            wanted, given = getattr(tensor, part), getattr(found, part)
            assert (wanted is None) == (given is None), name
            if wanted is not None:
                largest = float(np.abs(wanted).max(initial=0.0))
                np.testing.assert_allclose(given, wanted, 0, tolerance * largest, err_msg=name)
