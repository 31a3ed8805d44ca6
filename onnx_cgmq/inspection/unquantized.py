"""Takes a quantized model apart: into a float model, and the encodings of its tensors.

The float model computes with floats what the file computes with codes. Rounding each tensor to
its encoding gives the file's values back, which is what tools that simulate quantization do. A Relu
that became the smallest code of a quantizer is a Relu again, so the float model stands by itself.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common

from onnx_cgmq.contract.encodings import Encoding, Encodings, listed
from onnx_cgmq.contract.identifiers import FORM_KEY, LIVE_KEY, PLAN_KEY
from onnx_cgmq.errors import DAMAGE, ModelError, one_line
from onnx_cgmq.graph.constants import constant_value
from onnx_cgmq.graph.files.load import ModelLike, load_model
from onnx_cgmq.graph.nodes import called, standard_op, text_attribute
from onnx_cgmq.graph.nonnegative import nonnegative_values
from onnx_cgmq.graph.operators import Dependence, dependence_of, is_quantized_operator, moves_codes
from onnx_cgmq.inspection.encoded_operands import EncodedOperands, codes_of
from onnx_cgmq.inspection.file_grid import GIVE, FileGrid, grid_of, is_dequantize, unpacked
from onnx_cgmq.inspection.float_edits import FLOAT, FloatEdits
from onnx_cgmq.inspection.inspect_model import restore_operand_names
from onnx_cgmq.inspection.normalize import normalize
from onnx_cgmq.inspection.patterns.codes import code_type, is_quantize, type_range
from onnx_cgmq.inspection.patterns.float_nodes import rounded_in_float_nodes
from onnx_cgmq.inspection.reading import tensor_name
from onnx_cgmq.writing.embedded_plan import embedded_names


@dataclass(frozen=True)
class Unquantized:
    """A quantized model that was taken apart.

    Attributes:
        model: The float model. Its constants are the values that the file's codes stand for.
        encodings: The encodings of its tensors, by name.
        notes: What the encodings do not say.
    """

    model: ir.Model
    encodings: Encodings
    notes: tuple[str, ...]


def unquantized(model: ModelLike) -> Unquantized:
    """Takes a model with QuantizeLinear and DequantizeLinear apart, whichever tool wrote it.

    Args:
        model: The quantized model: a path, ``ModelProto`` or ``onnx_ir.Model``.

    Raises:
        ModelError: It can't be read, is not quantized, or computes on codes in another way.
    """
    graph = load_model(model)
    try:
        return _taken_apart(graph)
    except DAMAGE as error:
        raise ModelError(
            f"the model can't be taken apart: {type(error).__name__}: {one_line(error)}; check it "
            "with onnx.checker.check_model(full_check=True), and report it if it is valid"
        ) from error


def _taken_apart(model: ir.Model) -> Unquantized:
    restore_operand_names(model, embedded_names(model))
    normalize(model)
    common.TopologicalSortPass()(model)
    parts = _Parts(model)
    for node in list(model.graph):
        parts.replace(node)
    common.RemoveUnusedNodesPass()(model)
    left = next((node for node in model.graph.all_nodes() if is_quantized_operator(node)), None)
    if left is not None:
        raise ModelError(f"{called(left)} computes on codes in a way that floats can't; {GIVE}")
    if not parts.encodings:
        raise ModelError(f"the model has no quantizer that encodings could say; {GIVE}")
    for key in (PLAN_KEY, FORM_KEY, LIVE_KEY):
        model.metadata_props.pop(key, None)
    notes = list(parts.operands.notes)
    if parts.rounded:
        notes.append(f"{listed(parts.rounded)}: float nodes round these, and stay in the model")
    return Unquantized(model, parts.encodings, tuple(notes))


@dataclass(frozen=True, eq=False)
class _Codes:
    """A float value that takes the place of codes.

    Attributes:
        floats: The value.
        grid: The grid of the codes.
        ends: The smallest and the largest code that is possible.
        above: The codes of which a node made these; ``None`` for QuantizeLinear.
        clipped: Whether that node is a Clip.
    """

    floats: ir.Value
    grid: FileGrid
    ends: tuple[int, int]
    above: _Codes | None = None
    clipped: bool = False

    @property
    def ends_less_zero(self) -> tuple[int, int]:
        """The ends, less the zero point, of codes with one step."""
        zero = int(self.grid.zero_point.reshape(-1)[0])
        return self.ends[0] - zero, self.ends[1] - zero


class _Parts:
    """Replaces codes by floats in the graph of one model, node by node.

    Attributes:
        encodings: The encodings found so far.
        operands: What the file says about operands of MAC nodes.
        rounded: Names of tensors that float nodes round.
    """

    def __init__(self, model: ir.Model) -> None:
        self.encodings: Encodings = {}
        self.operands = EncodedOperands(model)
        self.rounded: list[str] = []
        self._edits = FloatEdits(model)
        self._codes: dict[ir.Value, _Codes] = {}
        self._encoded: set[ir.Value] = set()
        self._nonnegative = {*nonnegative_values(model.graph), *model.graph.inputs}
        self._constants: dict[tuple[str, bytes], ir.Value] = {}
        found = ((node, unpacked(node)) for node in model.graph)
        self._unpacked = {node: parts for node, parts in found if parts is not None}
        self._movers = _movers(model.graph, {cast for cast, _ in self._unpacked.values()})

    def replace(self, node: ir.Node) -> None:
        """Replaces a node that makes, moves or reads codes.

        Raises:
            ModelError: Floats can't take the place of its codes.
        """
        if is_quantize(node):
            self._quantize(node)
        elif is_dequantize(node):
            self._dequantize(node, node.inputs[0], grid_of(node))
        elif node in self._unpacked:
            cast, grid = self._unpacked[node]
            self._dequantize(node, cast.inputs[0], grid)
        elif node in self._movers and node.inputs[0] is not None:
            self._move(node, self._codes[node.inputs[0]])
        elif rounded_in_float_nodes(node) is not None:
            self.rounded.append(tensor_name(node.outputs[0]))

    # -- codes ----------------------------------------------------------------------------------

    def _quantize(self, node: ir.Node) -> None:
        """Lets all that read the codes of a QuantizeLinear read floats."""
        source, grid, dtype = node.inputs[0], grid_of(node), code_type(node.outputs[0])
        assert source is not None
        if dtype is None or not dtype.is_integer() or node.outputs[0].is_graph_output():
            raise ModelError(f"{called(node)} makes no codes that encodings could say; {GIVE}")
        if grid.step.ndim and source.const_value is None:
            raise ModelError(
                f"{called(node)} has a step for each channel of an activation, which encodings "
                f"can't say; {GIVE}"
            )
        smallest = type_range(dtype)[0]
        if source not in self._nonnegative and (grid.zero_point == smallest).all():
            source = self._edits.insert(node, "Relu", [source], f"{source.name}.relu")
        elif len(source.uses()) > 1 or source.is_graph_output():
            source = self._edits.insert(node, "Identity", [source], f"{source.name}.rounded")
        self._edits.take_over(node, source)
        self._codes[source] = _Codes(source, grid, type_range(dtype))

    def _move(self, node: ir.Node, codes: _Codes) -> None:
        """Makes a node compute with floats what it computed with codes."""
        operator = standard_op(node)
        pads = operator == "Pad" and text_attribute(node, "mode", "constant") == "constant"
        if codes.grid.step.ndim or not (operator == "Clip" or pads or moves_codes(node)):
            raise ModelError(f"{called(node)} computes on codes in a way that floats can't; {GIVE}")
        smallest, largest = codes.ends
        if operator == "Clip":
            low, high = self._read_floats(node, 1, codes), self._read_floats(node, 2, codes)
            smallest = smallest if low is None else max(smallest, low)
            largest = largest if high is None else min(largest, high)
        elif pads:
            self._read_floats(node, 2, codes)
        for output in node.outputs:
            output.type = FLOAT
            ends, clipped = (smallest, largest), operator == "Clip"
            self._codes[output] = _Codes(output, codes.grid, ends, codes, clipped)

    def _read_floats(self, node: ir.Node, index: int, codes: _Codes) -> int | None:
        """Makes a node read the number for which a constant code stands; returns the code."""
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None:
            return None
        code = constant_value(value)
        if code is None or code.size != 1:
            raise ModelError(f"{called(node)} reads codes that the data decide; {GIVE}")
        number = codes.grid.values(code.astype(np.int64).reshape(()))
        node.replace_input_with(
            index, self._edits.constant(f"{node.outputs[0].name}.input", number)
        )
        return int(code.reshape(()))

    # -- floats ---------------------------------------------------------------------------------

    def _dequantize(self, node: ir.Node, value: ir.Value | None, grid: FileGrid) -> None:
        """Replaces a node that makes floats of codes by the floats themselves."""
        assert value is not None
        codes, output = self._codes.get(value), node.outputs[0]
        if codes is None:
            self._edits.take_over(node, self._stored(node, value, grid))
            return
        if not np.array_equal(codes.grid.zero_point, grid.zero_point):
            raise ModelError(f"{called(node)} has another zero point than its codes; {GIVE}")
        if not codes.grid.is_same(grid):
            factor = self._edits.constant(f"{output.name}.factor", grid.step / codes.grid.step)
            product = self._edits.insert(
                node, "Mul", [codes.floats, factor], f"{output.name}.product"
            )
            if codes.floats in self._encoded:  # so the product is on a grid by itself
                self._edits.take_over(node, product)
                return
            codes = _Codes(product, grid, codes.ends)
        encoding = self.operands.activation(output, grid, codes.ends)
        above = codes.above
        if above is not None and codes.clipped and codes_of(encoding) == codes.ends_less_zero:
            alone = len(above.floats.uses()) == 1 and len(codes.floats.uses()) == 1
            codes = above if alone else codes  # the encoding does what the Clip did
        if codes.floats not in self._encoded:
            self._edits.name(codes.floats, output)
        self._encode(codes, encoding)
        self._edits.take_over(node, codes.floats)

    def _encode(self, codes: _Codes | None, encoding: Encoding) -> None:
        """Gives an encoding to floats, and to those of which they were made.

        They are on the same grid, and some tools round where these ask for it.
        """
        while codes is not None and codes.floats not in self._encoded:
            self._encoded.add(codes.floats)
            self.encodings[str(codes.floats.name)] = encoding
            codes = codes.above

    def _stored(self, node: ir.Node, value: ir.Value, grid: FileGrid) -> ir.Value:
        """The floats for which stored codes stand, as a constant; or rows of them, looked up."""
        path: list[ir.Node] = []
        source = value
        while source.const_value is None and (above := source.producer()) is not None:
            if not (standard_op(above) in ("Cast", "Gather") or moves_codes(above)):
                break
            assert above.inputs[0] is not None
            path.append(above)
            source = above.inputs[0]
        codes = constant_value(value)
        if codes is not None:
            path, source = [], value
        else:
            codes = None if grid.step.ndim else constant_value(source)
        if codes is None:
            raise ModelError(f"{called(node)} reads codes that floats can't replace; {GIVE}")
        floats = self._constant_of(source, codes, grid, node.outputs[0])
        for mover in reversed(path):
            if standard_op(mover) == "Cast":
                continue
            mover.replace_input_with(0, floats)
            floats = mover.outputs[0]
            floats.type = FLOAT
        return floats

    def _constant_of(
        self, source: ir.Value, codes: npt.NDArray[Any], grid: FileGrid, output: ir.Value
    ) -> ir.Value:
        """The constant for which codes stand: one for all nodes that read the same codes."""
        key = (str(source.name), grid.step.tobytes())
        if key not in self._constants:
            codes = codes.astype(np.int64)
            encoding = self.operands.weight((output, source), grid, codes)
            floats = self._edits.constant(tensor_name(output), grid.values(codes))
            self._edits.tensors.add(floats)
            self._constants[key] = floats
            if encoding is not None:
                self.encodings[str(floats.name)] = encoding
        return self._constants[key]


def _movers(graph: ir.Graph, casts: Container[ir.Node]) -> set[ir.Node]:
    """Finds the nodes that read codes of activations and make codes of them.

    Args:
        graph: The graph.
        casts: The nodes that begin to make floats of codes.
    """
    codes: set[ir.Value] = set()
    found: set[ir.Node] = set()
    for node in graph:
        ends = node in casts or is_dequantize(node)
        ends = ends or dependence_of(node) is Dependence.ON_SHAPES
        if node.inputs and node.inputs[0] in codes and not ends:
            found.add(node)
        if is_quantize(node) or node in found:
            codes.update(node.outputs)
    return found
