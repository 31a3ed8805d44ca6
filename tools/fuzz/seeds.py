"""The valid models that the fuzzer starts from."""

from __future__ import annotations

import numpy as np
import onnx

from tools.fetch.backend_cases import load

_NETWORKS = {
    "convnet": """
        <ir_version: 8, opset_import: ["" : 17]>
        convnet (float[batch, 3, 8, 8] image) => (float[batch, 4] scores) {
            c1 = Conv <pads = [1, 1, 1, 1]> (image, w1_4_3_3_3, b1_4)
            n1 = BatchNormalization (c1, s1_4, b1_4, m1_4, v1_4)
            r1 = Relu (n1)
            c2 = Conv <group = 4, strides = [2, 2]> (r1, w2_4_1_3_3)
            p = GlobalAveragePool (c2)
            f = Flatten (p)
            scores = Gemm <transB = 1> (f, w3_4_4, b3_4)
        }""",
    "residual": """
        <ir_version: 8, opset_import: ["" : 13]>
        residual (float[batch, 4, 6, 6] image) => (float[batch, 4, 3, 3] y) {
            c1 = Conv <auto_pad = "SAME_UPPER"> (image, w1_4_4_3_3)
            a = Add (c1, image)
            r = Clip (a)
            s = Sigmoid (r)
            m = Mul (r, s)
            y = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (m)
        }""",
    "attention": """
        <ir_version: 9, opset_import: ["" : 18]>
        attention (float[batch, length, 8] x) => (float[batch, length, 8] y) {
            n = LayerNormalization <axis = -1> (x, s_8, b_8)
            q = MatMul (n, wq_8_8)
            k = MatMul (n, wk_8_8)
            kt = Transpose <perm = [0, 2, 1]> (k)
            l = MatMul (q, kt)
            p = Softmax <axis = -1> (l)
            v = MatMul (n, wv_8_8)
            o = MatMul (p, v)
            y = Add (o, x)
        }""",
    "shapes": """
        <ir_version: 8, opset_import: ["" : 15]>
        shapes (float[batch, 2, 6] x) => (float[batch, rest] y) {
            shape = Shape (x)
            zero = Constant <value_ints: ints = [0]> ()
            one = Constant <value_ints: ints = [1]> ()
            rest = Constant <value_ints: ints = [-1]> ()
            size = Slice (shape, zero, one)
            target = Concat <axis = 0> (size, rest)
            flat = Reshape (x, target)
            y = MatMul (flat, w_12_3)
        }""",
    "branch": """
        <ir_version: 8, opset_import: ["" : 16]>
        branch (float[batch, 4] x, bool c) => (float[batch, 3] y) {
            h = MatMul (x, w_4_3)
            y = If (c) <
                then_branch = t () => (a) { a = Relu (h) },
                else_branch = e () => (b) { n = Neg (h) b = Gemm (n, v_3_3, v_3) }
            >
        }""",
    "recurrent": """
        <ir_version: 8, opset_import: ["" : 14]>
        recurrent (float[length, batch, 3] x) => (float[length, 1, batch, 4] y) {
            y, h = LSTM <hidden_size = 4> (x, w_1_16_3, r_1_16_4, b_1_32)
        }""",
    "functions": """
        <ir_version: 9, opset_import: ["" : 18, "local" : 1]>
        functions (float[batch, 4] x) => (float[batch, 4] y) {
            h = local.layer (x, w_4_4)
            y = local.layer (h, w_4_4)
        }
        <domain: "local", opset_import: ["" : 18]>
        layer (a, w) => (b) { m = MatMul (a, w) b = Relu (m) }""",
}


def seed_models(node_cases: bool = True) -> dict[str, bytes]:
    """Small networks with random weights, and the standard's node cases, as files by name.

    Args:
        node_cases: Whether to take the node cases too, which takes some seconds.
    """
    seeds = {name: _network(text) for name, text in _NETWORKS.items()}
    if node_cases:
        for case in load("node"):
            if not case.is_expanded:
                seeds[case.name] = case.model.SerializeToString()
    return seeds


def _network(text: str) -> bytes:
    """A model whose undefined inputs are weights; their names end in their shapes."""
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    graphs = [model.graph]
    for graph in graphs:
        for node in graph.node:
            graphs += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
            for name in node.input:
                _, *sizes = name.split("_")
                if sizes and all(size.isdigit() for size in sizes):
                    _add_weight(model.graph, name, tuple(map(int, sizes)), rng)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _add_weight(
    graph: onnx.GraphProto, name: str, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    if all(tensor.name != name for tensor in graph.initializer):
        values = rng.uniform(0.1, 1.0, shape).astype(np.float32)
        graph.initializer.append(onnx.numpy_helper.from_array(values, name))
