"""The gated QuantizeLinear/DequantizeLinear as model-local ONNX functions of standard nodes.

A quantizer first rounds the tensor ``x`` to the grid of every width ``b`` of its ladder. The grid
covers the range ``[low_b, high_b]``, where ``low_b = -high_b`` if the grid is symmetric. All
operations are in float32 and in this order::

    step_b = (high_b - low_b) / (2**b - 1)
    code   = clip(round_half_even(x / step_b) + zero_point_b, smallest code, largest code)
    y_b    = (code - zero_point_b) * step_b

The gate of the tensor, channel or element then selects one ``y_b``, or ``x`` itself at 32 bits, or
0 at width 0. Gates are those of CGMQ (arXiv 2409.20138).

A grid may have fewer codes than its integer type. QuantizeLinear saturates only at the ends of the
type, so ``x`` is clipped to the ends of such a grid first.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx
import onnx_ir as ir

from onnx_cgmq.contract.bits import (
    FLOAT_BITS,
    INTEGER_KERNEL_BITS,
    Granularity,
    GridForm,
    Ladder,
    code_range,
    intervals,
)
from onnx_cgmq.contract.identifiers import GATED_DOMAIN
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec

GATED_VERSION: Final = 1
"""Opset version of the domain :data:`GATED_DOMAIN`."""

GATED_PREFIX: Final = "GatedQDQ_"
"""Prefix of the operator types of gated quantizers."""

ACCUMULATOR_OP: Final = "AccumulatorQDQ"
"""Operator type of the function that rounds a bias to whole units of an INT32 accumulator."""

INT32_LIMIT: Final = 2**31 - 128
"""The largest float32 below ``2**31``. A bias with a larger code has no integer kernel."""

_LAYOUTS: Final = {
    Granularity.ELEMENT: "shared",
    Granularity.TENSOR: "tensor",
    Granularity.CHANNEL: "channel",
}


def function_name(spec: QuantizerSpec) -> str:
    """Returns the operator type of a quantizer: ``GatedQDQ_symmetric_channel_2_4_8_16_32``."""
    widths = "_".join(map(str, spec.ladder.widths))
    layout = "channel_ranges" if spec.channel_ranges else _LAYOUTS[spec.granularity]
    if spec.block is not None:
        layout = "block_ranges"
    return f"{GATED_PREFIX}{spec.form.value}_{layout}_{widths}"


def quantizer_attributes(spec: QuantizerSpec) -> list[ir.Attr]:
    """Returns the attributes of a node that calls :func:`gated_qdq`'s function."""
    if spec.block is not None and spec.block_axis is not None:
        return [
            ir.AttrInt64("axis", spec.block_axis),
            ir.AttrInt64("block_size", spec.block),
            ir.AttrInt64s("view", spec.view_shape),
        ]
    return [] if spec.axis is None else [ir.AttrInt64("axis", spec.axis)]


def is_gated_quantizer(node: ir.Node) -> bool:
    """Says whether a node is a gated quantizer."""
    return node.domain == GATED_DOMAIN and node.op_type.startswith(GATED_PREFIX)


def gated_qdq(spec: QuantizerSpec, opset: int) -> ir.Function:
    """Builds the function that quantizes a tensor as a spec says.

    The signature of the function is ``(x, [low,] high, gate) -> (y, step)``. Only affine grids have
    ``low``. An attribute ``axis`` names the channel axis where channels have ranges of their own.
    With blocks, ``x`` is first reshaped as an attribute ``view`` says, and ``axis`` names the axis
    of a block's elements, of which there are ``block_size``.
    ``low``, ``high`` and ``gate`` have the shapes that :class:`QuantizerSpec` gives, and ``y`` is
    the quantized value in the shape of ``x``.

    ``step`` has the shape ``spec.range_item_shape``. It is the step of the integer tensor that
    holds the codes (with ``element`` gates: the step of the widest selected grid). A pruned channel
    or tensor has the step of the narrowest width. If any gate selects more than 8 bits, ``step`` is
    0 everywhere, because no integer kernel can read the tensor. It is 0 as well if the range is
    that of each run: DynamicQuantizeLinear then takes the place of QuantizeLinear, and ``high``
    says nothing.

    Args:
        spec: Grid, granularity and ladder of the quantizer; its other fields do not matter.
        opset: Version of the standard operators, at least 21.

    Returns:
        The function, of the domain :data:`GATED_DOMAIN`.
    """
    return _parse(_FunctionText(spec).text(function_name(spec), opset))


def accumulator_qdq(opset: int) -> ir.Function:
    """Builds ``AccumulatorQDQ(bias, step_x, step_w) -> y``.

    ``y = round(bias / s) * s`` is exactly the bias that an integer kernel adds, where
    ``s = step_x * reshape(step_w, [-1])`` is one unit of its accumulator: the step of the
    activation times the step of the weight, one for each output channel. ``y = bias`` where
    ``s = 0`` (no integer kernel reads the operands), and everywhere if any code would leave INT32.

    Args:
        opset: Version of the standard operators.
    """
    return _parse(
        f"""<domain: "{GATED_DOMAIN}", opset_import: ["" : {opset}]>
        {ACCUMULATOR_OP} (bias, step_x, step_w) => (y)
        {{
            flat = Constant <value_ints: ints = [-1]> ()
            zero = Constant <value_float: float = 0.0> ()
            most = Constant <value_float: float = {INT32_LIMIT}.0> ()
            step_w_flat = Reshape (step_w, flat)
            step = Mul (step_x, step_w_flat)
            steps = Div (bias, step)
            code = Round (steps)
            quantized = Mul (code, step)
            sizes = Abs (steps)
            largest = ReduceMax (sizes)
            fits = LessOrEqual (largest, most)
            has_step = Greater (step, zero)
            integer = And (fits, has_step)
            y = Where (integer, quantized, bias)
        }}"""
    )


def _parse(text: str) -> ir.Function:
    return ir.serde.deserialize_function(onnx.parser.parse_function(text))


class _FunctionText:
    """Writes the nodes of one quantizer's function, in the text format of ONNX."""

    def __init__(self, spec: QuantizerSpec) -> None:
        self.form = spec.form
        self.granularity = spec.granularity
        self.ladder: Ladder = spec.ladder
        self.spec = spec
        self.lines: list[str] = []

    def text(self, name: str, opset: int) -> str:
        """Writes the whole function."""
        self._constant("zero", 0.0)
        if self.spec.block is not None:
            self._add("view_shape", "Constant <value_ints: ints = @view> ()")
            self._add("viewed", "Reshape (x, view_shape)")
        for width in self.ladder.quantized:
            if self.form is GridForm.DYNAMIC:
                self._quantize_dynamically(width)
                continue
            self._select_range(width)
            self._quantize(width)
        self._select_value()
        self._select_step()
        axis = "<axis> " if self.spec.has_channels else ""
        if self.spec.block is not None:
            axis = "<axis, block_size, view> "
        low = "low, " if self.form is GridForm.AFFINE else ""
        nodes = "\n".join(f"    {line}" for line in self.lines)
        return (
            f'<domain: "{GATED_DOMAIN}", opset_import: ["" : {opset}]>\n'
            f"{name} {axis}(x, {low}high, gate) => (y, step)\n{{\n{nodes}\n}}"
        )

    def _add(self, output: str, call: str) -> None:
        self.lines.append(f"{output} = {call}")

    def _constant(self, name: str, value: float) -> None:
        self._add(name, f"Constant <value_float: float = {value:.1f}> ()")

    def _select_range(self, width: int) -> None:
        """Adds ``high_b``, ``low_b`` and ``step_b``, in the shape ``range_item_shape``."""
        index = self.spec.range_index(width)
        self._add(f"i_{width}", f"Constant <value_int: int = {index}> ()")
        self._add(f"high_{width}", f"Gather <axis: int = 0> (high, i_{width})")
        span = f"high_{width}"
        if self.form.is_symmetric:
            self._add(f"span_{width}", f"Add (high_{width}, high_{width})")
            span = f"span_{width}"
        elif self.form is GridForm.AFFINE:
            self._add(f"low_{width}", f"Gather <axis: int = 0> (low, i_{width})")
            self._add(f"span_{width}", f"Sub (high_{width}, low_{width})")
            span = f"span_{width}"
        self._constant(f"n_{width}", intervals(width, self.form))
        self._add(f"step_{width}", f"Div ({span}, n_{width})")

    def _quantize(self, width: int) -> None:
        """Adds ``y_b``: one QuantizeLinear followed by one DequantizeLinear."""
        self._zero_point(width)
        bits = max(width, 4)  # 2-bit types need opset 25; 4-bit types hold the clipped codes too
        signed = self.form.is_symmetric
        dtype = ir.DataType[f"{'INT' if signed else 'UINT'}{bits}"]
        scale, offset = f"step_{width}", f"offset_{width}"
        axis = ""
        if self.spec.block is not None:
            axis = "<axis: int = @axis, block_size: int = @block_size> "
        elif self.spec.has_channels:
            axis = "<axis: int = @axis> "
            if "flat = " not in "".join(self.lines):
                self._add("flat", "Constant <value_ints: ints = [-1]> ()")
            for name in (scale, offset):
                self._add(f"{name}_flat", f"Reshape ({name}, flat)")
            scale, offset = f"{scale}_flat", f"{offset}_flat"
        self._add(f"zero_point_{width}", f"Cast <to: int = {dtype.value}> ({offset})")
        grid = f"({{}}, {scale}, zero_point_{width})"
        source = self._clipped(width) if signed or width < bits else self._source
        self._add(f"code_{width}", f"QuantizeLinear {axis}{grid.format(source)}")
        self._add(f"y_{width}", f"DequantizeLinear {axis}{grid.format(f'code_{width}')}")

    def _quantize_dynamically(self, width: int) -> None:
        """Adds ``y_b`` on the range that the tensor has; its step is no step of the quantizer."""
        outputs = f"code_{width}, scale_{width}, zero_point_{width}"
        self._add(outputs, "DynamicQuantizeLinear (x)")
        self._add(f"y_{width}", f"DequantizeLinear ({outputs})")

    def _zero_point(self, width: int) -> None:
        """Adds ``offset_b``: the zero point in float32, in the shape of ``step_b``."""
        if self.form is not GridForm.AFFINE:
            self._add(f"offset_{width}", f"Mul (step_{width}, zero)")
            return
        self._add(f"depth_{width}", f"Neg (low_{width})")
        self._add(f"steps_{width}", f"Div (depth_{width}, step_{width})")
        self._add(f"rounded_{width}", f"Round (steps_{width})")
        self._add(f"offset_{width}", f"Clip (rounded_{width}, zero, n_{width})")

    def _clipped(self, width: int) -> str:
        """Adds ``x`` clipped to the values of the smallest and the largest code; names it."""
        smallest, largest = code_range(width, self.form)
        for end, code in (("least", smallest), ("most", largest)):
            self._constant(f"{end}_code_{width}", code)
            factor = f"{end}_code_{width}"
            if self.form is GridForm.AFFINE:
                self._add(f"{end}_shifted_{width}", f"Sub ({factor}, offset_{width})")
                factor = f"{end}_shifted_{width}"
            self._add(f"{end}_{width}", f"Mul ({factor}, step_{width})")
        self._add(f"above_{width}", f"Max ({self._source}, least_{width})")
        self._add(f"in_{width}", f"Min (above_{width}, most_{width})")
        return f"in_{width}"

    def _select_value(self) -> None:
        """Adds ``y``: the value at the narrowest width whose threshold the gate does not exceed."""
        *narrower, widest = self.ladder.widths
        selected = self._value(widest)
        for width in reversed(narrower):
            self._constant(f"threshold_{width}", self.ladder.threshold(width))
            self._add(f"is_{width}", f"LessOrEqual (gate, threshold_{width})")
            self._add(f"y_to_{width}", f"Where (is_{width}, {self._value(width)}, {selected})")
            selected = f"y_to_{width}"
        if self.spec.block is None:
            self._add("y", f"Identity ({selected})")
            return
        self._add("shape", "Shape (x)")
        self._add("y", f"Reshape ({selected}, shape)")

    def _value(self, width: int) -> str:
        """Names the value of ``x`` at a width."""
        return {0: "zero", FLOAT_BITS: self._source}.get(width, f"y_{width}")

    @property
    def _source(self) -> str:
        """Names the tensor in the shape to which ranges broadcast."""
        return "x" if self.spec.block is None else "viewed"

    def _select_step(self) -> None:
        """Adds ``step``, as :func:`gated_qdq` describes it."""
        kernel = [width for width in self.ladder.widths if width <= INTEGER_KERNEL_BITS]
        quantized = self.ladder.quantized
        if not kernel or not quantized or self.form is GridForm.DYNAMIC:
            # No width has an integer kernel with a fixed step: it is 0, in the shape of a range.
            self._add("i_first", "Constant <value_int: int = 0> ()")
            self._add("first", "Gather <axis: int = 0> (high, i_first)")
            self._add("step", "Mul (first, zero)")
            return
        selector = "gate"
        if self.granularity is not Granularity.TENSOR:
            self._add("widest", "ReduceMax <keepdims: int = 0> (gate)")
        if self.granularity is Granularity.ELEMENT:
            selector = "widest"
        *narrower, last = [width for width in quantized if width <= INTEGER_KERNEL_BITS] or [
            quantized[0]
        ]
        selected = f"step_{last}"
        for width in reversed(narrower):
            self._constant(f"step_threshold_{width}", self.ladder.threshold(width))
            self._add(f"step_is_{width}", f"LessOrEqual ({selector}, step_threshold_{width})")
            self._add(f"step_to_{width}", f"Where (step_is_{width}, step_{width}, {selected})")
            selected = f"step_to_{width}"
        if np.isinf(self.ladder.threshold(kernel[-1])):
            self._add("step", f"Identity ({selected})")
            return
        gate = "gate" if self.granularity is Granularity.TENSOR else "widest"
        self._constant("kernel_threshold", self.ladder.threshold(kernel[-1]))
        self._add("has_kernel", f"LessOrEqual ({gate}, kernel_threshold)")
        self._add("step", f"Where (has_kernel, {selected}, zero)")
