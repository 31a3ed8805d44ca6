"""The form ``ort``: models that stock onnxruntime loads and fuses into integer kernels.

Weights are INT2, INT4 or INT8 at their true size, activations UINT8, biases INT32.
:mod:`~onnx_cgmq.writing.weights` and :mod:`~onnx_cgmq.writing.activations` say how each is written,
and why it is exact on every processor. With onnxruntime's optimizations off, the result computes
what the gated graph computes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from onnx_cgmq.contract.bits import FLOAT_BITS, Role
from onnx_cgmq.contract.plan import TensorPlan
from onnx_cgmq.gating.gated_qdq import ACCUMULATOR_OP
from onnx_cgmq.gating.packed_weights import PackedReaders
from onnx_cgmq.gating.predicted_kernels import Kernel, KernelChoice, has_codes, predict_kernels
from onnx_cgmq.gating.summed_pairs import SumOrder, weight_sums
from onnx_cgmq.graph.layouts import permutation, transposed_views
from onnx_cgmq.graph.nodes import int_attribute, standard_op
from onnx_cgmq.graph.operators import has_inexact_kernel, mac_spec
from onnx_cgmq.writing.activations import (
    dequantize,
    dequantize_for_float_kernel,
    read_shape_of,
    uint8_grid,
    write_codes,
    write_float_activation,
)
from onnx_cgmq.writing.channels_last import flatten_channels_last
from onnx_cgmq.writing.codes import FloatArray, may_saturate
from onnx_cgmq.writing.dynamic_products import (
    ProductWeight,
    dynamic_products,
    is_dynamic,
    write_dynamic_activation,
    write_product_weight,
)
from onnx_cgmq.writing.gated_tensors import GatedTensor, GatedTensors
from onnx_cgmq.writing.hard_sigmoid import write_hard_sigmoids
from onnx_cgmq.writing.image_channels import add_image_channels
from onnx_cgmq.writing.node_writer import NodeWriter
from onnx_cgmq.writing.packed_products import PACKED, packed_products, write_packed
from onnx_cgmq.writing.separate_biases import separate_biases
from onnx_cgmq.writing.separate_clamps import separate_clamps
from onnx_cgmq.writing.separate_sums import separate_sums
from onnx_cgmq.writing.sink_dequantize import sink_dequantization
from onnx_cgmq.writing.weights import (
    store_weight,
    write_bias,
    write_float_bias,
    write_float_weight,
    write_integer_weight,
)

_Use = tuple[ir.Node, int]
"""A node, and the index of one of its inputs."""


def write_ort(
    tensors: GatedTensors, integer_kernels: bool = True, weight_kernels: bool = False
) -> Mapping[str, KernelChoice]:
    """Replaces every gated quantizer by the form ``ort``, in place.

    Args:
        tensors: The gated tensors of the model.
        integer_kernels: Whether to write for integer kernels where onnxruntime has them. Otherwise
            the model is written for float kernels, which compute the same.
        weight_kernels: Whether to write weights packed for matrix products with float activations
            (:mod:`~onnx_cgmq.writing.packed_products`).

    Returns:
        The kernel that onnxruntime will run for each node of the gated graph, by node name.
    """
    kernels = _kernels(tensors) if integer_kernels else _float_kernels(tensors)
    integer = {node for node, choice in kernels.items() if choice.kernel is Kernel.INTEGER}
    packed = packed_products(tensors, integer) if weight_kernels else {}
    dynamic = dynamic_products(tensors, integer)
    multiply_packed = {node for readers in packed.values() for node in readers.nodes}
    kernels.update(dict.fromkeys(multiply_packed, PACKED))
    by_name = {str(node.name): choice for node, choice in kernels.items()}
    writer = _Writer(tensors, integer, packed, dynamic, may_fuse=integer_kernels)
    writer.run()
    integer -= dynamic  # which are other nodes now
    sink_dequantization(tensors.graph)
    write_hard_sigmoids(tensors.graph)
    flatten_channels_last(tensors.graph)
    separate_biases(tensors.graph)
    separate_sums(tensors.graph, {node for node in integer if standard_op(node) == "MatMul"})
    products = {node for node in integer if standard_op(node) in ("Gemm", "MatMul")}
    separate_clamps(tensors.graph, products | multiply_packed)
    add_image_channels(tensors.graph, writer.images)
    return by_name


def _float_kernels(tensors: GatedTensors) -> dict[ir.Node, KernelChoice]:
    """Chooses a float kernel for every MAC node."""
    choice = KernelChoice(Kernel.FLOAT, "it is written for a float kernel")
    return {node: choice for node in tensors.graph if mac_spec(node) is not None}


def _kernels(tensors: GatedTensors) -> dict[ir.Node, KernelChoice]:
    """Predicts the kernel that onnxruntime will run for each node of the gated graph."""
    widths = {tensor.name: tensor.plan.grid_width for tensor in tensors.of_role(*Role)}
    overflowing = {
        node
        for node in tensors.graph
        if node.op_type == ACCUMULATOR_OP and tensors.accumulator_step(node) is None
    }
    return predict_kernels(tensors.model, widths, overflowing)


class _Writer:
    """Writes every tensor as codes for integer kernels, and as floats for float kernels.

    Attributes:
        images: The convolutions of images that are to get a channel of zeros more.
    """

    def __init__(
        self,
        tensors: GatedTensors,
        integer: Collection[ir.Node],
        packed: Mapping[ir.Node, PackedReaders],
        dynamic: set[ir.Node],
        may_fuse: bool,
    ) -> None:
        """Prepares the writing.

        Args:
            tensors: The gated tensors of the model.
            integer: The nodes that are to run in integers.
            packed: The quantizers of weights that are to be written packed, with their readers.
            dynamic: The nodes that are to run in integers with codes that are made at run time.
            may_fuse: Whether onnxruntime may fuse operators with the quantizers around them.
        """
        # The sums that each weight is part of are found here, in the gated graph, because the first
        # quantizer that is replaced changes the graph.
        self._tensors = tensors
        self._integer_nodes = frozenset(integer)
        self._packed = packed
        self._dynamic = dynamic
        self._product_weights: dict[ir.Node, ProductWeight] = {}
        self._may_fuse = may_fuse
        weights = tensors.of_role(Role.WEIGHT)
        self._sums = {weight.node: self._sums_of(weight) for weight in weights}
        self.images: set[ir.Node] = set()
        for weight in weights:
            self._choose_channels(weight)

    def run(self) -> None:
        """Writes all tensors, the biases first."""
        self._tensors.write_biases(self._write_bias)
        for weight in self._tensors.of_role(Role.WEIGHT):
            self._write_weight(weight)
        for activation in self._tensors.of_role(Role.ACTIVATION):
            self._write_activation(activation)
        self._tensors.graph.sort()

    def _write_bias(
        self, emit: NodeWriter, plan: TensorPlan, values: FloatArray, step: FloatArray | None
    ) -> ir.Value:
        """Writes a bias as INT32 if only integer kernels read it, and as floats otherwise."""
        readers = [use.node for use in emit.anchor.outputs[0].uses()]
        if step is None or self._integer_nodes.issuperset(readers):
            return write_bias(emit, plan, values, step)
        return write_float_bias(emit, plan, values, step)

    def _write_weight(self, tensor: GatedTensor) -> None:
        """Writes a weight: its codes once, and how integer and float kernels read them.

        A weight with any float element becomes a float initializer.
        """
        emit, quantized = NodeWriter(tensor.node, tensor.name), tensor.node.outputs[0]
        if tensor.plan.grid_width == FLOAT_BITS:
            tensor.replace(tensor.float_value(emit))
        elif tensor.node in self._packed:
            write_packed(self._tensors, tensor, self._packed[tensor.node])
            self._remove_unread_views(quantized)
        else:
            types, sums = self._tensors.types, self._sums[tensor.node]
            with tensor.values() as values:
                stored = store_weight(emit, tensor.spec, tensor.plan, values, types, sums)
            integer = self._integer_uses(quantized)
            for axes, uses in integer.items():
                _replace(uses, write_integer_weight(_turned(tensor, axes), stored, axes))
            dynamic = self._dynamic_uses(quantized)
            for axes, uses in dynamic.items():
                weight = write_product_weight(_turned(tensor, axes), stored, axes)
                _replace(uses, weight.codes)
                self._product_weights.update({node: weight for node, _ in uses})
            self._remove_unread_views(quantized)
            if quantized.uses():
                base = f"{tensor.name}.float" if integer or dynamic else tensor.name
                tensor.replace(write_float_weight(NodeWriter(tensor.node, base), stored))
        self._tensors.graph.remove(tensor.node, safe=True)

    def _remove_unread_views(self, quantized: ir.Value) -> None:
        """Removes the Transpose nodes of a weight that nothing reads any more."""
        for view, path in reversed(list(transposed_views(quantized))):
            if path and not view.uses():
                self._tensors.graph.remove(path[0], safe=True)

    def _integer_uses(self, quantized: ir.Value) -> dict[tuple[int, ...], list[_Use]]:
        """Finds the inputs of integer kernels that read a weight, by its axes as they read them.

        The axes of those that do not read it transposed are empty.
        """
        found: dict[tuple[int, ...], list[_Use]] = {}
        for view, path in transposed_views(quantized):
            axes = permutation(path, len(view.shape or ())) if path else ()
            static = self._integer_nodes - self._dynamic
            uses = [use for use in view.uses() if use.node in static]
            if uses:
                found.setdefault(axes, []).extend(uses)
        return found

    def _dynamic_uses(self, quantized: ir.Value) -> dict[tuple[int, ...], list[_Use]]:
        """Finds the same for products of codes that are made at run time, without ``transB``."""
        found: dict[tuple[int, ...], list[_Use]] = {}
        for view, path in transposed_views(quantized):
            axes = permutation(path, 2) if path else (0, 1)
            for use in [use for use in view.uses() if use.node in self._dynamic]:
                turned = bool(int_attribute(use.node, "transB", 0))
                read = axes[::-1] if turned else axes
                found.setdefault(() if read == (0, 1) else read, []).append(use)
        return found

    def _write_activation(self, tensor: GatedTensor) -> None:
        """Writes the codes of an activation, and its values for integer and for float kernels."""
        node, plan = tensor.node, tensor.plan
        emit = NodeWriter(node, tensor.name)
        if is_dynamic(tensor):
            write_dynamic_activation(tensor, self._product_weights)
        elif not has_codes(tensor.spec, plan.grid_width):
            tensor.replace(write_float_activation(emit, plan, tensor.source))
        else:
            codes = write_codes(emit, plan, tensor.source)
            read_shape_of(node.outputs[0], codes.value)
            uses = tuple(node.outputs[0].uses())
            floats = [use for use in uses if self._reads_floats(use.node)]
            if floats:
                mixed = len(floats) < len(uses)
                above = NodeWriter(node, f"{tensor.name}.float" if mixed else tensor.name)
                _replace(floats, dequantize_for_float_kernel(above, plan, codes))
            if len(floats) < len(uses):
                tensor.replace(dequantize(emit, codes))
        self._tensors.graph.remove(node, safe=True)

    def _reads_floats(self, node: ir.Node) -> bool:
        """Says whether a node must not be fused with the quantizers around it."""
        is_float_mac = mac_spec(node) is not None and node not in self._integer_nodes
        return not self._may_fuse or is_float_mac or has_inexact_kernel(node)

    def _choose_channels(self, weight: GatedTensor) -> None:
        """Finds the image that a weight reads, if it is to get a channel of zeros more.

        It gets none if the weight could then saturate: a plan of another version may leave room for
        the pairs of three channels alone.
        """
        sums = self._sums[weight.node]
        codes = weight.codes() if any(order.zeros for order, _ in sums) else None
        if codes is None:
            return
        if may_saturate(codes.codes, sums):
            self._sums[weight.node] = [(replace(order, zeros=0), code) for order, code in sums]
        else:
            self.images.update(use.node for use in weight.node.outputs[0].uses())

    def _sums_of(self, weight: GatedTensor) -> list[tuple[SumOrder, int]]:
        """Lists the sums of the integer kernels that read a weight, as ``store_weight`` wants."""
        found = []
        quantized = weight.node.outputs[0]
        for order, activation in weight_sums(quantized, weight.spec.shape, self._integer_nodes):
            other = self._tensors.of(activation)
            if other is not None:
                found.append((order, uint8_grid(other.plan).largest))
        return found


def _turned(tensor: GatedTensor, axes: tuple[int, ...]) -> NodeWriter:
    """Writes nodes of a weight for those that read it by other axes than its own, if any."""
    turned = f".transposed_{'_'.join(map(str, axes))}" if axes else ""
    return NodeWriter(tensor.node, f"{tensor.name}{turned}")


def _replace(uses: Sequence[_Use], value: ir.Value) -> None:
    """Makes some inputs of nodes read a value."""
    for node, index in uses:
        node.replace_input_with(index, value)
