"""Prepares a float ONNX model: brings it into the one form that all later steps expect."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer

from onnx_cgmq.contract.identifiers import GATED_DOMAIN, METADATA_PREFIX, PREPARED_KEY, RUNTIME_KEY
from onnx_cgmq.errors import ConfigError, ModelError, one_line
from onnx_cgmq.graph.files.load import ModelLike, load_model
from onnx_cgmq.graph.infer import infer_shapes
from onnx_cgmq.graph.nodes import called, standard_op
from onnx_cgmq.graph.operators import MAC_OP_TYPES, is_quantized_operator, mac_spec
from onnx_cgmq.ort.versions import Runtime
from onnx_cgmq.preparation.branches import (
    hidden_branches,
    inline_constant_branches,
    remove_identities,
)
from onnx_cgmq.preparation.constant_room import ConstantRoom
from onnx_cgmq.preparation.decompose import decompose
from onnx_cgmq.preparation.fold_affine import fold_affine
from onnx_cgmq.preparation.gemm_factors import fold_gemm_factors
from onnx_cgmq.preparation.hard_activations import fuse_hard_activations
from onnx_cgmq.preparation.lift_clamps import lift_clamps
from onnx_cgmq.preparation.means import pool_means
from onnx_cgmq.preparation.opset import convert
from onnx_cgmq.preparation.precision import change_float_type
from onnx_cgmq.preparation.reshapes import fix_reshapes
from onnx_cgmq.preparation.scalars import make_scalars
from onnx_cgmq.preparation.upgrade import upgrade
from onnx_cgmq.preparation.views import merge_views

_UNLIMITED: Final = 2**40  # elements: constants of any size are folded


def prepare(model: ModelLike, *, runtime: str | None = None) -> ir.Model:
    """Brings a float model into the form that all later steps expect.

    A prepared model computes the same as the original, with these differences:

    * Functions are inlined. ``Constant`` nodes and constant expressions are initializers.
    * Constant scales and shifts (BatchNormalization, a bias that is an Add) are folded into the
      operator before them. A MatMul with a bias is a Gemm.
    * Spelled-out hard sigmoids are HardSigmoid. Chains of views are one Reshape. Relu and Clip
      come before the movers that lie between them and a kernel.
    * Fused operators of onnxruntime (domain com.microsoft) are standard ones, if these are equal.
    * What was computed in float16 or bfloat16 is computed in float32.
    * The opset is the newest one (up to 25) that onnxruntime runs. Shapes are inferred, every node
      has a name, and nodes that nothing reads are gone.

    Args:
        model: Path, ``onnx.ModelProto`` or ``onnx_ir.Model``; it is not changed.
        runtime: The versions of onnxruntime that are to run the written model, such as
            ``onnxruntime>=1.22``; by default the installed one.

    Returns:
        The prepared model.

    Raises:
        ModelError: The model can't be read or upgraded, is already quantized, has no operator that
            multiplies and accumulates, or uses a newer opset than ``runtime`` accepts.
        ConfigError: ``runtime`` can't be parsed or met, or the model was prepared without it.
    """
    prepared = load_model(model)
    prepare_in_place(prepared, runtime)
    return prepared


def is_prepared(model: ir.Model) -> bool:
    """Says whether :func:`prepare` made a model."""
    return PREPARED_KEY in model.metadata_props


def prepare_in_place(model: ir.Model, runtime: str | None = None) -> None:
    """Does the work of :func:`prepare` on a model that the caller owns."""
    _refuse_quantized(model)
    if is_prepared(model):
        check_runtime(model, runtime)
        return
    if runtime is not None:
        model.metadata_props[RUNTIME_KEY] = str(Runtime.required(runtime).version)
    try:
        with _quiet():
            _simplify(model)
    except (ir.passes.PassError, RuntimeError, ValueError) as error:
        raise ModelError(f"the model can't be prepared: {one_line(error)}") from error
    _refuse_quantized(model)
    _refuse_nothing_to_quantize(model)
    model.metadata_props[PREPARED_KEY] = "1"


def check_runtime(model: ir.Model, runtime: str | None) -> None:
    """Refuses a prepared model that older versions of onnxruntime than it is for are to run.

    Args:
        model: A prepared model.
        runtime: The versions that are to run it; ``None`` accepts any model.

    Raises:
        ConfigError: The model was prepared for newer versions only, or the requirement can't be
            parsed or met.
    """
    if runtime is None:
        return
    wanted, given = Runtime.required(runtime).version, Runtime.of(model).version
    if wanted < given:
        raise ConfigError(
            f"runtime {runtime!r}: the model was prepared for onnxruntime {given} and newer; "
            "give prepare() the same runtime"
        )


def _simplify(model: ir.Model) -> None:
    """Runs all passes, in an order in which each of them finds what it needs."""
    # An initializer that is an input too could be overridden by callers, and so would not be
    # constant. From here on these are initializers only.
    common.RemoveInitializersFromInputsPass()(model)
    # Old opsets first, because all later passes only know the operators of opset 18 and newer.
    upgrade(model)
    # Then one graph whose constants are initializers, so that passes see values and weights.
    ir.passes.Sequential(
        common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        common.InlinePass(lambda function: function.domain != GATED_DOMAIN),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        common.RemoveUnusedNodesPass(),
    )(model)
    # The converter of opsets needs to know ranks, and they need scalars where these must be.
    infer_shapes(model)
    make_scalars(model)
    convert(model)
    change_float_type(model)
    # Replacing fused operators needs ranks too, and new ranks may allow to replace more of them.
    infer_shapes(model)
    while decompose(model):
        infer_shapes(model)
    # Folding comes after that, because it only evaluates standard operators.
    _fold(model)
    _name_nodes(model)
    # Constant shapes first: merge_views() reads sizes. The nodes that computed these must be gone
    # by then, because they count as readers of a value.
    fix_reshapes(model)
    common.RemoveUnusedNodesPass()(model)
    merge_views(model)
    # Hard sigmoids before factors, because fold_affine() would fold the factors of their pattern.
    fuse_hard_activations(model)
    # Factors of Gemm first: what is folded into it then meets a plain product.
    fold_gemm_factors(model)
    fold_affine(model)
    pool_means(model)
    # After all passes that fold what lies between a kernel and its clamp, or look for Clip.
    lift_clamps(model.graph)
    # This is last, because the rewrites leave Identity nodes where a branch or a chain ended.
    remove_identities(model)
    ir.passes.Sequential(
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        common.RemoveUnusedOpsetsPass(),
        common.TopologicalSortPass(),
    )(model)
    _name_nodes(model)
    common.NameFixPass()(model)
    _tell_apart(model)
    infer_shapes(model)


def _fold(model: ir.Model) -> None:
    """Computes constant expressions, because weights must be initializers.

    Only those whose results are too large for memory are refused.

    An ``If`` with a constant condition is replaced by its branch, which may make more constant.
    """
    room = ConstantRoom(model)

    def should_fold(node: ir.Node) -> bool | None:
        choice = _should_fold(node)
        return choice if choice is not False and room.takes(node) else False

    while True:
        with hidden_branches(model):
            optimizer.fold_constants_ir(
                model,
                input_size_limit=_UNLIMITED,
                output_size_limit=_UNLIMITED,
                should_fold=should_fold,
            )
        common.RemoveUnusedNodesPass()(model)
        if not inline_constant_branches(model):
            return
        infer_shapes(model)


def _should_fold(node: ir.Node) -> bool | None:
    """Says whether a node is folded; ``None`` lets the pass decide."""
    if standard_op(node) == "ConstantOfShape":
        return True  # the pass would not fold it
    weight = node.inputs[0] if standard_op(node) == "Transpose" else None
    if weight is not None and weight.is_initializer() and len(weight.uses()) > 1:
        return False  # one weight in two layouts would become two weights that learn separately
    return None


def _name_nodes(model: ir.Model) -> None:
    """Gives nodes without a name one that is made of operator and output."""
    for graph in model.graphs():
        for node in graph:
            if not node.name:
                node.name = f"{node.op_type}_{node.outputs[0].name}"


def _tell_apart(model: ir.Model) -> None:
    """Gives nodes in subgraphs names that no other node has: kernels and costs go by names."""
    taken = {node.name for node in model.graph}
    for node in model.graph.all_nodes():
        if node.graph is model.graph:
            continue
        name, count = node.name, 1
        while node.name in taken:
            node.name, count = f"{name}_{count}", count + 1
        taken.add(node.name)


def _refuse_quantized(model: ir.Model) -> None:
    for key in model.metadata_props:
        if key.startswith(METADATA_PREFIX) and key not in (PREPARED_KEY, RUNTIME_KEY):
            raise ModelError(
                "the model was already quantized by onnx-cgmq, as its metadata says; start from "
                "the float model"
            )
    for graph in model.graphs():
        for node in graph:
            if node.domain == GATED_DOMAIN:
                raise ModelError(
                    f"the model has gates already ({called(node)}); start from the float model"
                )
            if is_quantized_operator(node):
                raise ModelError(
                    f"the model is already quantized ({called(node)}); start from the float model"
                )


def _refuse_nothing_to_quantize(model: ir.Model) -> None:
    if any(mac_spec(node) is not None for graph in model.graphs() for node in graph):
        return
    found = sorted({standard_op(node) or node.op_type for node in model.graph})
    raise ModelError(
        f"nothing to quantize: the model has none of {', '.join(MAC_OP_TYPES)} "
        f"(its operators: {', '.join(found) or 'none'}); give a model that has one of them"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides messages below errors that the passes of onnxscript and onnx_ir log."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
