"""write_back(): a plan becomes a standard ONNX model, in one of the forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import onnx_ir as ir
import onnx_ir.passes.common as passes

from onnx_cgmq.errors import ConfigError
from onnx_cgmq.graph.files.load import ModelLike, load_model
from onnx_cgmq.graph.gating.gated_qdq import GATED_DOMAIN
from onnx_cgmq.graph.liveness import live_sets, note_live_sets
from onnx_cgmq.graph.lower.compact import compact_model
from onnx_cgmq.graph.lower.form import FORM_KEY, Form
from onnx_cgmq.graph.lower.gated import GatedTensors
from onnx_cgmq.graph.lower.metadata import embed_plan
from onnx_cgmq.graph.lower.native import write_native
from onnx_cgmq.graph.lower.older_opset import lower_opset
from onnx_cgmq.graph.lower.ort import write_ort
from onnx_cgmq.graph.lower.qonnx import write_qonnx
from onnx_cgmq.graph.lower.storage import ir_version, quantizer_opset
from onnx_cgmq.graph.preparation.opset import raise_opset
from onnx_cgmq.graph.sizes import SHAPES_KEY
from onnx_cgmq.plan import BitPlan

_WRITERS: Final[dict[Form, Callable[[GatedTensors], None]]] = {
    Form.ORT: write_ort,
    Form.NATIVE: write_native,
    Form.QONNX: write_qonnx,
}
"""What replaces every quantizer of a gated graph, in place."""


def write_back(
    gated: ModelLike, plan: BitPlan, *, form: Form | str = Form.ORT, compact: bool = True
) -> ir.Model:
    """Writes the widths, ranges and values of a plan into a standard ONNX model without gates.

    The result computes what the gated graph computes at the plan's gates. How tensors are written
    is said in the module of the form: :mod:`~onnx_cgmq.graph.lower.ort`,
    :mod:`~onnx_cgmq.graph.lower.native`, :mod:`~onnx_cgmq.graph.lower.qonnx`.

    Args:
        gated: The gated model; it is not changed.
        plan: A plan for its tensors. Values of weights and biases come from the plan, or else from
            the gated model.
        form: How to write quantized tensors.
        compact: Leave out what readers can do without, and shorten names
            (:func:`~onnx_cgmq.graph.lower.compact.compact_model`).

    Returns:
        The model, with the plan in its metadata. What the model says of itself stays there; notes
        of exporters at its nodes do not.

    Raises:
        ModelError: The model has no gates, or the plan does not fit it.
        ConfigError: There is no such form.
    """
    form = _form(form)
    model = load_model(gated)
    tensors = GatedTensors(model, plan)
    # Which activations live together is read off the gated graph: written, it has other nodes.
    live = () if plan.cost.peak_activation_bytes is None else live_sets(model)
    _WRITERS[form](tensors)
    for function in list(model.functions):
        if function[0] == GATED_DOMAIN:
            del model.functions[function]
    passes.RemoveUnusedNodesPass()(model)
    passes.ClearMetadataAndDocStringPass()(model)  # stack traces of exporters, above all
    model.graph.opset_imports.pop(GATED_DOMAIN, None)
    if form is Form.QONNX:
        lower_opset(model)
    else:
        raise_opset(model, max(map(quantizer_opset, _types(model)), default=0))
    names = compact_model(model, form) if compact else {}
    model.ir_version = max(model.ir_version, *map(ir_version, _types(model)), 8)
    for key in list(model.metadata_props):
        if key.startswith(f"{GATED_DOMAIN}.") and key != SHAPES_KEY:
            del model.metadata_props[key]
    model.metadata_props[FORM_KEY] = form.value
    embed_plan(model, plan, tensors.specs, names)
    note_live_sets(model, live)
    return model


def _types(model: ir.Model) -> set[ir.DataType]:
    """Types of the constants."""
    initializers = model.graph.initializers.values()
    return {value.dtype for value in initializers if value.dtype is not None}


def _form(form: Form | str) -> Form:
    try:
        return Form(form)
    except ValueError:
        known = ", ".join(known.value for known in Form)
        raise ConfigError(f"form {form!r} can't be written; choose one of {known}") from None
