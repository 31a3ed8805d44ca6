"""Starts a run from the widths and ranges of a plan that the user gives."""

from __future__ import annotations

import math

import numpy as np
import torch

from onnx_cgmq.contract.bits import FLOAT_BITS, GridForm, Role, intervals
from onnx_cgmq.contract.encodings import Encoding, largest_code, smallest_code
from onnx_cgmq.contract.given_plan import GivenPlan
from onnx_cgmq.errors import ConfigError
from onnx_cgmq.learn.bias_room import leave_room_for_biases
from onnx_cgmq.learn.guide import Guide
from onnx_cgmq.learn.pair_room import leave_room_for_pairs
from onnx_cgmq.mirror.quantizers.quantizer import GatedQuantizer


def start_from(guide: Guide, plan: GivenPlan) -> None:
    """Sets gates and ranges of a calibrated mirror to those of a plan, as far as it has them.

    Ranges of other widths stay as calibrated. A range still leaves room for biases and for pairs of
    codes, as every range does.

    Raises:
        ConfigError: A width is not among those that the run chooses from, or the plan has another
            number of channels than the tensor.
    """
    widths = guide.widths
    given: list[tuple[GatedQuantizer, Encoding]] = []
    for name, quantizer in guide.mirror.quantizers.items():
        encoding, spec = plan.encodings.get(name), quantizer.spec
        if encoding is None or spec.role is Role.BIAS:
            continue
        if encoding.width not in spec.ladder.widths:
            allowed = ", ".join(map(str, spec.ladder.widths))
            raise ConfigError(
                f"{plan.source}: tensor '{name}' has {encoding.width} bits, but the run chooses "
                f"from {allowed}; choose a target and widths that have them, or change the plan"
            )
        widths[name] = np.full_like(widths[name], encoding.width)
        given.append((quantizer, encoding))
    guide.set_widths(widths)
    for quantizer, encoding in given:
        if encoding.width < FLOAT_BITS and encoding.step is not None:
            _set_range(quantizer, encoding, plan.source)
    leave_room_for_biases(guide.mirror)
    leave_room_for_pairs(guide.mirror)


@torch.no_grad()
def _set_range(quantizer: GatedQuantizer, encoding: Encoding, source: str) -> None:
    spec = quantizer.spec
    ends = range_of(encoding, spec.form)
    shape = spec.range_item_shape
    if ends[0].size not in (1, math.prod(shape)) and spec.has_channels:
        raise ConfigError(
            f"{source}: tensor '{spec.tensor}' has {ends[0].size} steps, but "
            f"{math.prod(shape)} channels; give one step, or one for each channel"
        )
    if not spec.has_channels:  # one range for all channels: the widest
        ends = ends[0].min(), ends[1].max()
    index = spec.range_index(encoding.width)
    low, high = (torch.from_numpy(np.array(end, np.float32)) for end in ends)
    quantizer.base_high[index] = high.reshape(-1).expand(math.prod(shape)).reshape(shape)
    quantizer.log_high[index] = 0.0
    if quantizer.log_low is not None:
        quantizer.base_low[index] = low.reshape(-1).expand(math.prod(shape)).reshape(shape)
        quantizer.log_low[index] = 0.0


def range_of(
    encoding: Encoding, form: GridForm
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.float32]], ...]:
    """The ends of the range with which a grid of a form has the step of an encoding.

    A grid that is not of the encoding's form covers the encoding's values, if it can.
    """
    assert encoding.step is not None
    smallest, largest = smallest_code(encoding), largest_code(encoding)
    step = encoding.step.astype(np.float64)
    if form.is_symmetric:
        reach = np.maximum(largest, -smallest)
        half = 2 ** (encoding.width - 1)
        beyond = reach > half  # a signed type has one code more, which is no reason to widen
        codes = np.where(beyond, reach, half - 1) / (half - 1)
        high = step * codes * intervals(encoding.width, form) / 2
        return -high.astype(np.float32), high.astype(np.float32)
    if form is GridForm.AFFINE and encoding.form.is_symmetric:
        smallest = smallest - 1  # so that the zero point is whole
    low = np.zeros_like(step) if form is GridForm.UNSIGNED else step * smallest
    return low.astype(np.float32), (step * largest).astype(np.float32)
