"""write_back(): writes a plan into a standard ONNX model, in one of the forms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import onnx_ir as ir
import onnx_ir.passes.common as passes

from onnx_cgmq.contract.form import Form
from onnx_cgmq.contract.identifiers import FORM_KEY, GATED_DOMAIN, SHAPES_KEY
from onnx_cgmq.contract.plan import BitPlan
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.errors import ConfigError
from onnx_cgmq.gating.live_sets import embed_live_sets, live_sets
from onnx_cgmq.gating.predicted_kernels import KernelChoice
from onnx_cgmq.graph.files.load import ModelLike, load_model
from onnx_cgmq.graph.integer_types import ir_version, quantizer_opset
from onnx_cgmq.preparation.opset import raise_opset
from onnx_cgmq.writing.compact.compact import compact_model
from onnx_cgmq.writing.embedded_plan import embed_plan
from onnx_cgmq.writing.form_native import write_native
from onnx_cgmq.writing.form_ort import write_ort
from onnx_cgmq.writing.form_qonnx import write_qonnx
from onnx_cgmq.writing.form_tensorrt import write_tensorrt
from onnx_cgmq.writing.gated_tensors import GatedTensors
from onnx_cgmq.writing.older_opset import lower_opset

_WRITERS: Final[dict[Form, Callable[[GatedTensors, bool, bool], Mapping[str, KernelChoice]]]] = {
    Form.ORT: write_ort,
    Form.NATIVE: lambda tensors, *_: write_native(tensors),
    Form.TENSORRT: lambda tensors, *_: write_tensorrt(tensors),
    Form.QONNX: lambda tensors, *_: write_qonnx(tensors),
}
"""By form, the function that replaces every quantizer of a gated graph in place, and returns the
predicted kernels by node name."""


@dataclass(frozen=True)
class Written:
    """A written model, and the kernels that it was written for.

    Attributes:
        model: The model, without gates.
        kernels: The kernel that onnxruntime will run for each node of the gated graph, by node
            name; empty for the forms that are not for onnxruntime.
    """

    model: ir.Model
    kernels: Mapping[str, KernelChoice]


def write_back(
    gated: ModelLike,
    plan: BitPlan,
    *,
    form: Form | str = Form.ORT,
    compact: bool = True,
    short_names: bool = False,
    weight_kernels: bool = False,
) -> ir.Model:
    """Writes the widths, ranges and values of a plan into a standard ONNX model without gates.

    The result computes what the gated graph computes with the widths and ranges of the plan. The
    modules of the forms say how tensors are written: :mod:`~onnx_cgmq.writing.form_ort`,
    :mod:`~onnx_cgmq.writing.form_native`, :mod:`~onnx_cgmq.writing.form_qonnx`.

    Args:
        gated: The gated model. It is not changed.
        plan: The plan of the model. Values of weights and biases come from the plan, or from the
            gated model if the plan has none.
        form: The form in which quantized tensors are written.
        compact: Whether to leave out what readers can do without, and to shorten names where they
            would take much of the file (:func:`~onnx_cgmq.writing.compact.compact.compact_model`).
        short_names: Whether ``compact`` shortens all names.
        weight_kernels: Whether the form ``ort`` has packed weights for matrix products with float
            activations, as the target ``ort-weights`` has them.

    Returns:
        The written model, with the embedded plan in its metadata. Other metadata of the model
        stays. Metadata and doc strings of its nodes do not, since exporters keep stack traces
        there.

    Raises:
        ModelError: The model has no gates, or the plan does not fit it.
        ConfigError: There is no such form, or it lacks the ranges of the gated model.
    """
    written = write(
        gated,
        plan,
        form=form,
        compact=compact,
        short_names=short_names,
        weight_kernels=weight_kernels,
    )
    return written.model


def write(
    gated: ModelLike,
    plan: BitPlan,
    *,
    form: Form | str = Form.ORT,
    compact: bool = True,
    short_names: bool = False,
    integer_kernels: bool = True,
    weight_kernels: bool = False,
) -> Written:
    """Writes a plan as :func:`write_back` does, and returns the predicted kernels too.

    Args:
        gated: The gated model. It is not changed.
        plan: The plan of the model.
        form: The form in which quantized tensors are written.
        compact: Whether to leave out what readers can do without, and to shorten names where they
            would take much of the file.
        short_names: Whether ``compact`` shortens all names.
        integer_kernels: Whether the form ``ort`` is written for integer kernels. ``False`` writes
            the same values on the same grids so that onnxruntime multiplies floats.
        weight_kernels: As for :func:`write_back`.

    Raises:
        ModelError: The model has no gates, or the plan does not fit it.
        ConfigError: There is no such form.
    """
    form = _form(form)
    model = load_model(gated)
    tensors = GatedTensors(model, plan)
    if form is not Form.ORT:
        _check_ranges(tensors.specs.values(), form)
    # Live sets are found in the gated graph, because the written one has other nodes.
    bounded = plan.cost is not None and plan.cost.peak_activation_bytes is not None
    live = live_sets(model) if bounded else ()
    float_names = _float_names(model)
    kernels = _WRITERS[form](tensors, integer_kernels, weight_kernels)
    for function in list(model.functions):
        if function[0] == GATED_DOMAIN:
            del model.functions[function]
    passes.RemoveUnusedNodesPass()(model)
    passes.ClearMetadataAndDocStringPass()(model)  # exporters keep stack traces there
    model.graph.opset_imports.pop(GATED_DOMAIN, None)
    if form is Form.QONNX:
        lower_opset(model)
    else:
        raise_opset(model, max(map(quantizer_opset, _types(model)), default=0))
    names = {}
    if compact:
        names = compact_model(model, form, float_names, short_names=short_names)
    model.ir_version = max(model.ir_version, *map(ir_version, _types(model)), 8)
    for key in list(model.metadata_props):
        if key.startswith(f"{GATED_DOMAIN}.") and key != SHAPES_KEY:
            del model.metadata_props[key]
    model.metadata_props[FORM_KEY] = form.value
    embed_plan(model, plan, tensors.specs, names)
    embed_live_sets(model, live)
    return Written(model, kernels)


def _float_names(gated: ir.Model) -> set[str]:
    """Returns the names of values and nodes that a gated model has from the float model."""
    nodes = [node for node in gated.graph.all_nodes() if node.domain != GATED_DOMAIN]
    values = [value for graph in gated.graphs() for value in graph.initializers.values()]
    values += [output for node in nodes for output in node.outputs]
    return {str(node.name) for node in nodes} | {str(value.name) for value in values}


def _check_ranges(specs: Iterable[QuantizerSpec], form: Form) -> None:
    """Checks that a form has the ranges of a gated model.

    Raises:
        ConfigError: A weight has ranges for blocks.
    """
    for spec in specs:
        if spec.block is not None:
            raise ConfigError(
                f"weight '{spec.tensor}' has a range for each block of {spec.block} elements, "
                f"which the form '{form.value}' does not have; write the form 'ort', or insert "
                "the gates with weight_ranges='channel'"
            )


def _types(model: ir.Model) -> set[ir.DataType]:
    """Returns the types of all initializers of the graph."""
    initializers = model.graph.initializers.values()
    return {value.dtype for value in initializers if value.dtype is not None}


def _form(form: Form | str) -> Form:
    """Returns a form by its name.

    Raises:
        ConfigError: There is no such form.
    """
    try:
        return Form(form)
    except ValueError:
        known = ", ".join(known.value for known in Form)
        raise ConfigError(f"form {form!r} can't be written; choose one of {known}") from None
