"""Old forms of standard operators (opset 7 to 17), rewritten into those of opset 18.

Later versions are left to onnxscript's converter. onnx's own, which starts at any opset, changes
the values of Upsample, Resize-10 and Hardmax, and needs the whole model as a protobuf.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.infer import infer_shapes
from onnx_cgmq.graph.nodes import int_attribute, standard_op

UPGRADED_TO: Final = 18
"""The opset that is reached."""

OLDEST_READ: Final = 7
"""Before it, operators broadcast by attributes."""

_Upgrade = Callable[[ir.Node, int], None]


def upgrade(model: ir.Model) -> None:
    """Rewrites a model of opset 7 to 17 to opset 18, in place; newer ones are left alone.

    Functions and subgraphs included; all get the newest opset of any of them, so that functions can
    be inlined. Operators of other domains stay as they are. Attributes that became inputs become
    Constant nodes.

    Raises:
        ModelError: The opset is older, or a node means something that opset 18 can't say.
    """
    opset = model.opset_imports.setdefault("", model.opset_imports.pop("ai.onnx", UPGRADED_TO))
    if opset < OLDEST_READ:
        raise ModelError(
            f"the model uses opset {opset}; opsets before {OLDEST_READ} are not read: export it "
            "with a newer one"
        )
    if opset < 13:
        infer_shapes(model)  # the axis of Softmax depends on ranks
    functions = list(model.functions.values())
    others = [function.opset_imports.get("", UPGRADED_TO) for function in functions]
    newest = max(UPGRADED_TO, opset, *others)
    _upgrade_graphs(list(model.graphs()), opset, newest)
    model.opset_imports[""] = newest
    for function in functions:
        opset = function.opset_imports.get("", newest)
        _upgrade_graphs([function.graph, *function.subgraphs()], opset, newest)
        function.opset_imports[""] = newest


def _upgrade_graphs(graphs: list[ir.Graph], opset: int, newest: int) -> None:
    for graph in graphs:
        for node in list(graph):
            for before, change in _UPGRADES.get(standard_op(node) or "", ()):
                if opset < before <= newest:
                    change(node, opset)


def _to_inputs(**indices: int) -> _Upgrade:
    """Attributes that became inputs, at their indices."""

    def change(node: ir.Node, opset: int) -> None:
        for name, index in indices.items():
            attribute = node.attributes.pop(name, None)
            if attribute is not None:
                _set_input(node, index, _array(node, attribute))

    return change


def _array(node: ir.Node, attribute: ir.Attr) -> np.ndarray[Any, Any]:
    if attribute.is_ref():
        raise _refused(node, f"its attribute '{attribute.name}' is that of a function")
    kinds = {
        ir.AttributeType.FLOAT: np.float32,
        ir.AttributeType.FLOATS: np.float32,
        ir.AttributeType.INT: np.int64,
        ir.AttributeType.INTS: np.int64,
    }
    return np.array(attribute.value, dtype=kinds[attribute.type])


def _set_input(node: ir.Node, index: int, array: np.ndarray[Any, Any]) -> None:
    """Gives a node a constant input."""
    node.resize_inputs(max(len(node.inputs), index + 1))
    node.replace_input_with(index, _before(node, "Constant", [], value=ir.tensor(array)))


def _before(
    node: ir.Node, op_type: str, inputs: list[ir.Value | None], **attributes: Any
) -> ir.Value:
    """The output of a new node before a node."""
    new = ir.node(op_type, inputs, attributes)
    new.outputs[0].name = f"{node.outputs[0].name}.{op_type.lower()}.{len(node.graph or ())}"
    assert node.graph is not None
    node.graph.insert_before(node, new)
    return new.outputs[0]


def _refused(node: ir.Node, reason: str) -> ModelError:
    return ModelError(
        f"node '{node.name}' ({node.op_type}) can't be upgraded to opset {UPGRADED_TO}: {reason}; "
        f"export the model with opset {UPGRADED_TO} or newer"
    )


def _typed_bounds(node: ir.Node, opset: int) -> None:
    """Clip: float bounds of the type of its input."""
    dtype = node.inputs[0].dtype if node.inputs[0] is not None else None
    for name, index in (("min", 1), ("max", 2)):
        attribute = node.attributes.pop(name, None)
        if attribute is not None:
            array = _array(node, attribute)
            _set_input(node, index, array.astype((dtype or ir.DataType.FLOAT).numpy()))


def _pad_value(node: ir.Node, opset: int) -> None:
    """Pad: a value of the type of its input."""
    dtype = node.inputs[0].dtype if node.inputs[0] is not None else None
    value = node.attributes.pop("value", None)
    _to_inputs(pads=1)(node, opset)
    if value is not None:
        _set_input(node, 2, _array(node, value).astype((dtype or ir.DataType.FLOAT).numpy()))


def _one_element(node: ir.Node, opset: int) -> None:
    """TopK: its number as a tensor of one element."""
    attribute = node.attributes.pop("k")
    _set_input(node, 1, _array(node, attribute).reshape(1))


def _batch_norm(node: ir.Node, opset: int) -> None:
    spatial = node.attributes.pop("spatial", None)
    if spatial is not None and spatial.as_int() != 1:
        raise _refused(node, "its statistics are per element (spatial=0)")
    if len([output for output in node.outputs if output.name]) > 1:
        raise _refused(node, "it updates running statistics (training mode)")


def _dropout(node: ir.Node, opset: int) -> None:
    node.attributes.pop("ratio", None)  # without training_mode nothing is dropped
    if opset < 10 and any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        raise _refused(node, "its mask is used, which was no truth value then")


def _coerced(node: ir.Node, opset: int) -> None:
    """Softmax and its kin: worked on a matrix, of all axes from ``axis`` on."""
    x = node.inputs[0]
    axis = int_attribute(node, "axis", 1)
    rank = None if x is None or x.shape is None else len(x.shape)
    if axis == -1 or (rank is not None and axis % rank == rank - 1):
        node.attributes["axis"] = ir.AttrInt64("axis", -1)
        return
    shape = _before(node, "Shape", [x])
    node.replace_input_with(0, _before(node, "Flatten", [x], axis=axis))
    node.attributes["axis"] = ir.AttrInt64("axis", -1)
    _reshape_output(node, shape)


def _reshape_output(node: ir.Node, shape: ir.Value) -> None:
    """Lets a Reshape behind a node give its output, name included."""
    old = node.outputs[0]
    reshape = ir.node("Reshape", [old, shape])
    new = reshape.outputs[0]
    new.name, new.type, new.shape = old.name, old.type, old.shape
    old.name, old.shape = f"{old.name}.matrix", None
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    reshape.replace_input_with(0, old)
    assert node.graph is not None
    node.graph.insert_after(node, reshape)


def _upsample(node: ir.Node, opset: int) -> None:
    _to_inputs(scales=1)(node, opset)
    node.op_type = "Resize"
    _asymmetric(node, enlarges=True)


def _resize(node: ir.Node, opset: int) -> None:
    scales = node.inputs[1].const_value if node.inputs[1] is not None else None
    factors = None if scales is None else scales.numpy()
    if factors is not None and np.all(factors >= 1):
        _asymmetric(node, enlarges=True)
    elif factors is not None and np.all(factors <= 1):
        _asymmetric(node, enlarges=False)
    elif "mode" in node.attributes and node.attributes["mode"].as_string() == "linear":
        _asymmetric(node, enlarges=True)
    else:
        raise _refused(node, "how it rounds is only known for constant scales, all up or all down")


def _asymmetric(node: ir.Node, enlarges: bool) -> None:
    """Upsample and the first Resize: no half pixels; onnxruntime rounds up where it shrinks."""
    mode = node.attributes.get("mode")
    if mode is not None and mode.as_string() not in ("nearest", "linear", "bilinear"):
        raise _refused(node, f"its mode is '{mode.as_string()}'")
    if mode is not None and mode.as_string() == "bilinear":
        node.attributes["mode"] = ir.AttrString("mode", "linear")
    scales = node.inputs[1]
    node.resize_inputs(3)
    node.replace_input_with(1, None)
    node.replace_input_with(2, scales)
    transform = "coordinate_transformation_mode"
    node.attributes[transform] = ir.AttrString(transform, "asymmetric")
    rounding = "floor" if enlarges else "ceil"
    node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", rounding)


def _scatter(node: ir.Node, opset: int) -> None:
    node.op_type = "ScatterElements"


def _split(node: ir.Node, opset: int) -> None:
    """Equal parts, whose number the outputs told."""
    if len(node.inputs) < 2 or node.inputs[1] is None:
        node.attributes["num_outputs"] = ir.AttrInt64("num_outputs", len(node.outputs))


def _roi_align(node: ir.Node, opset: int) -> None:
    name = "coordinate_transformation_mode"
    node.attributes[name] = ir.AttrString(name, "output_half_pixel")


def _scan(node: ir.Node, opset: int) -> None:
    raise _refused(node, "it runs over a batch (Scan of opset 8)")


def _changed_later(node: ir.Node, opset: int) -> None:
    raise _refused(node, f"it is of opset {opset}, and other parts of the model are newer")


_REDUCTIONS: Final = (
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean"),
    *("ReduceMin", "ReduceProd", "ReduceSumSquare"),
)

_UPGRADES: Final[dict[str, tuple[tuple[int, _Upgrade], ...]]] = {
    "BatchNormalization": ((14, _batch_norm),),
    "Clip": ((11, _typed_bounds),),
    "Dropout": ((12, _dropout),),
    "Hardmax": ((13, _coerced),),
    "LogSoftmax": ((13, _coerced),),
    "Pad": ((11, _pad_value),),
    "ReduceSum": ((13, _to_inputs(axes=1)),),
    "Resize": ((11, _resize),),
    "RoiAlign": ((16, _roi_align),),
    "Scan": ((9, _scan),),
    "Scatter": ((11, _scatter),),
    "Slice": ((10, _to_inputs(starts=1, ends=2, axes=3)),),
    "Softmax": ((13, _coerced),),
    "Split": ((13, _to_inputs(split=1)), (18, _split)),
    "Squeeze": ((13, _to_inputs(axes=1)),),
    "TopK": ((10, _one_element),),
    "Unsqueeze": ((13, _to_inputs(axes=1)),),
    "Upsample": ((10, _upsample),),
    **{op: ((18, _to_inputs(axes=1)),) for op in _REDUCTIONS},
    # Left to the converter, unless a function and the model differ.
    "DFT": ((20, _changed_later),),
    "GridSample": ((20, _changed_later),),
    "GroupNormalization": ((21, _changed_later),),
}
"""For each operator: what changes in models before an opset, oldest first."""
