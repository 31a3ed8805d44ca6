"""Tells whether a file and the same file with optimizations differ by how ties round, only.

QuantizeLinear rounds a value halfway between two codes to the even one, before it adds the zero
point. onnxruntime's QLinearAdd and QLinearMul add the zero point first, and so round such a value
to the other code if the zero point is odd. Both codes are as far from the value. With few bits a
step is so large that many sums of two codes are such ties.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from onnx_cgmq.data import Batch
from onnx_cgmq.ort.session import open_session

_ROUNDING = 1e-3
"""How far a kernel's float32 arithmetic may move a value, in codes: at most 255 of them."""


def differ_by_ties(written: ir.Model, batches: Iterable[Batch]) -> bool:
    """Says whether each kernel of a file with optimizations gives a code nearest to the true value.

    The true value is computed without optimizations, from the codes that the kernels above gave.
    So one kernel is judged at a time, and a code that flips does not count where it is read.

    Args:
        written: The file, in the form ``ort`` and not compact: its scales are constants.
        batches: Batches of samples.
    """
    proto = ir.to_proto(written)
    quantizers = [node for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    outputs = [output.name for output in proto.graph.output]
    optimized = open_session(proto, threads=1)
    shown = open_session(_showing_codes(proto, quantizers), threads=1)
    apart = open_session(_cut_at_codes(proto, quantizers), threads=1, optimize=False)
    for batch in batches:
        found = _run(shown, batch.inputs)
        known = {**constants, **batch.inputs, **found}
        known |= _run(apart, known)  # the outputs, and the values for all codes
        for name, array in _run(optimized, batch.inputs).items():
            if not np.array_equal(array, found[name], equal_nan=True):
                return False  # other kernels run once the codes are shown
        for node in quantizers:
            value, scale, zero_point = (known[name].astype(np.float64) for name in node.input)
            true = np.clip(value / scale + zero_point, 0, 255)
            if np.abs(found[node.output[0]] - true).max(initial=0) > 0.5 + _ROUNDING:
                return False
        for name in outputs:
            size = np.abs(known[name]).max(initial=0)
            if not np.allclose(found[name], known[name], rtol=0, atol=_ROUNDING * size):
                return False
    return True


def _showing_codes(proto: onnx.ModelProto, quantizers: Iterable[onnx.NodeProto]) -> onnx.ModelProto:
    """A copy of a model that gives all codes of activations as outputs too."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    copy.graph.output.extend(_codes(node) for node in quantizers)
    return copy


def _cut_at_codes(proto: onnx.ModelProto, quantizers: Iterable[onnx.NodeProto]) -> onnx.ModelProto:
    """A copy of a model that takes all codes of activations, and gives the values for them too.

    Its outputs are those of the model, taken from the codes that it is given.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    graph = copy.graph
    kept = [node for node in graph.node if node.op_type != "QuantizeLinear"]
    del graph.node[:]
    graph.node.extend(kept)
    made = {name for node in kept for name in node.output}
    given = {output.name for output in graph.output}
    values = dict.fromkeys(node.input[0] for node in quantizers)
    graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in values
        if name in made - given
    )
    graph.input.extend(_codes(node) for node in quantizers)
    return copy


def _codes(node: onnx.NodeProto) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(node.output[0], TensorProto.UINT8, None)


def _run(session: ort.InferenceSession, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Runs a session on those arrays that it takes, and returns its outputs by name."""
    names = [output.name for output in session.get_outputs()]
    taken = {known.name: inputs[known.name] for known in session.get_inputs()}
    return dict(zip(names, session.run(names, taken), strict=True))
