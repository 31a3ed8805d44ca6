"""Rewrites standard operators of opset 7 to 17 into those of opset 18.

onnxscript's converter does the rest of the way. The converter of onnx itself, which starts at any
opset, changes the values of Upsample, Hardmax and Resize of opset 10, and needs the whole model as
a protobuf.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.infer import infer_shapes
from onnx_cgmq.graph.nodes import called, int_attribute, standard_op

UPGRADED_TO: Final = 18
"""The opset to which models are upgraded."""

OLDEST_READ: Final = 7
"""The oldest opset that is read. Before it, attributes said how operators broadcast."""

_Upgrade = Callable[[ir.Node, int], None]
"""Rewrites a node of a given opset, in place."""


def upgrade(model: ir.Model) -> None:
    """Rewrites a model of opset 7 to 17 to opset 18, in place; a newer model stays as it is.

    Subgraphs and functions are rewritten too. Model and functions all get the newest opset of any
    of them, so that functions can be inlined. Operators of other domains stay as they are.
    Attributes that are inputs in opset 18 become Constant nodes.

    Raises:
        ModelError: The opset is older than 7, or opset 18 can't express a node.
    """
    opset = model.opset_imports.setdefault("", model.opset_imports.pop("ai.onnx", UPGRADED_TO))
    if opset < OLDEST_READ:
        raise ModelError(
            f"the model uses opset {opset}; opsets before {OLDEST_READ} are not read: export it "
            "with a newer opset"
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
    """Makes an upgrade that turns attributes into inputs, at the given indices."""

    def change(node: ir.Node, opset: int) -> None:
        for name, index in indices.items():
            attribute = node.attributes.pop(name, None)
            if attribute is not None:
                _set_input(node, index, _array(node, attribute))

    return change


def _array(node: ir.Node, attribute: ir.Attr) -> np.ndarray[Any, Any]:
    if attribute.is_ref():
        raise _refused(node, f"its attribute '{attribute.name}' comes from that of a function")
    kinds = {
        ir.AttributeType.FLOAT: np.float32,
        ir.AttributeType.FLOATS: np.float32,
        ir.AttributeType.INT: np.int64,
        ir.AttributeType.INTS: np.int64,
    }
    return np.array(attribute.value, dtype=kinds[attribute.type])


def _set_input(node: ir.Node, index: int, array: np.ndarray[Any, Any]) -> None:
    """Sets an input of a node to a constant."""
    node.resize_inputs(max(len(node.inputs), index + 1))
    node.replace_input_with(index, _insert_before(node, "Constant", [], value=ir.tensor(array)))


def _insert_before(
    node: ir.Node, op_type: str, inputs: list[ir.Value | None], **attributes: Any
) -> ir.Value:
    """Inserts a new node before a node and returns its output."""
    new = ir.node(op_type, inputs, attributes)
    new.outputs[0].name = f"{node.outputs[0].name}.{op_type.lower()}.{len(node.graph or ())}"
    assert node.graph is not None
    node.graph.insert_before(node, new)
    return new.outputs[0]


def _refused(node: ir.Node, reason: str) -> ModelError:
    return ModelError(
        f"{called(node)} can't be upgraded to opset {UPGRADED_TO}: {reason}; export the model with "
        f"opset {UPGRADED_TO} or newer"
    )


def _clip(node: ir.Node, opset: int) -> None:
    """Makes the limits of Clip inputs of the type of its first input."""
    dtype = node.inputs[0].dtype if node.inputs[0] is not None else None
    for name, index in (("min", 1), ("max", 2)):
        attribute = node.attributes.pop(name, None)
        if attribute is not None:
            array = _array(node, attribute)
            _set_input(node, index, array.astype((dtype or ir.DataType.FLOAT).numpy()))


def _pad(node: ir.Node, opset: int) -> None:
    """Makes the value of Pad an input of the type of its first input."""
    dtype = node.inputs[0].dtype if node.inputs[0] is not None else None
    value = node.attributes.pop("value", None)
    _to_inputs(pads=1)(node, opset)
    if value is not None:
        _set_input(node, 2, _array(node, value).astype((dtype or ir.DataType.FLOAT).numpy()))


def _top_k(node: ir.Node, opset: int) -> None:
    """Makes the number of TopK an input of one element."""
    attribute = node.attributes.pop("k")
    _set_input(node, 1, _array(node, attribute).reshape(1))


def _batch_norm(node: ir.Node, opset: int) -> None:
    spatial = node.attributes.pop("spatial", None)
    if spatial is not None and spatial.as_int() != 1:
        raise _refused(node, "its statistics are per element (spatial=0)")
    if len([output for output in node.outputs if output.name]) > 1:
        raise _refused(node, "it updates running statistics (training mode)")


def _dropout(node: ir.Node, opset: int) -> None:
    node.attributes.pop("ratio", None)  # nothing is dropped outside of training
    if opset < 10 and any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        raise _refused(node, "its mask is used, which has another type since opset 10")


def _softmax(node: ir.Node, opset: int) -> None:
    """Keeps the meaning of Softmax, LogSoftmax and Hardmax before opset 13.

    They worked on a matrix whose columns were all axes from ``axis`` on.
    """
    x = node.inputs[0]
    axis = int_attribute(node, "axis", 1)
    rank = None if x is None or x.shape is None else len(x.shape)
    if axis == -1 or (rank is not None and axis % rank == rank - 1):
        node.attributes["axis"] = ir.AttrInt64("axis", -1)
        return
    shape = _insert_before(node, "Shape", [x])
    node.replace_input_with(0, _insert_before(node, "Flatten", [x], axis=axis))
    node.attributes["axis"] = ir.AttrInt64("axis", -1)
    _reshape_output(node, shape)


def _reshape_output(node: ir.Node, shape: ir.Value) -> None:
    """Puts a Reshape behind a node; its output takes the place and the name of the node's."""
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
        raise _refused(
            node, "its rounding is only known for constant scales that all enlarge or all shrink"
        )


def _asymmetric(node: ir.Node, enlarges: bool) -> None:
    """Gives Resize the attributes that mean what Upsample and Resize of opset 10 did.

    They have no half pixels, and onnxruntime rounds up where they shrink.
    """
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
    """Sets the number of equal parts, which is the number of outputs."""
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
    "Clip": ((11, _clip),),
    "Dropout": ((12, _dropout),),
    "Hardmax": ((13, _softmax),),
    "LogSoftmax": ((13, _softmax),),
    "Pad": ((11, _pad),),
    "ReduceSum": ((13, _to_inputs(axes=1)),),
    "Resize": ((11, _resize),),
    "RoiAlign": ((16, _roi_align),),
    "Scan": ((9, _scan),),
    "Scatter": ((11, _scatter),),
    "Slice": ((10, _to_inputs(starts=1, ends=2, axes=3)),),
    "Softmax": ((13, _softmax),),
    "Split": ((13, _to_inputs(split=1)), (18, _split)),
    "Squeeze": ((13, _to_inputs(axes=1)),),
    "TopK": ((10, _top_k),),
    "Unsqueeze": ((13, _to_inputs(axes=1)),),
    "Upsample": ((10, _upsample),),
    **{op: ((18, _to_inputs(axes=1)),) for op in _REDUCTIONS},
    # The converter handles these, unless model and functions have different opsets.
    "DFT": ((20, _changed_later),),
    "GridSample": ((20, _changed_later),),
    "GroupNormalization": ((21, _changed_later),),
}
"""For each operator: opsets, oldest first, and the upgrade that nodes of older opsets need."""
