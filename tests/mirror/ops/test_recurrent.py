"""RNN, GRU and LSTM against onnxruntime, which knows every attribute but ``layout``."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import helper

from onnx_cgmq.errors import UnsupportedOperatorError
from onnx_cgmq.mirror import Mirror
from onnx_cgmq.mirror.core.registry import Context
from onnx_cgmq.mirror.ops.recurrent import gru, lstm, rnn

TIME, BATCH, INPUT, HIDDEN = 5, 3, 4, 6
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
ORDER = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
ALL = frozenset(ORDER)
PLAIN = frozenset({"X", "W", "R"})

BOTH = {"direction": "bidirectional"}
CASES: list[tuple[str, dict[str, Any], frozenset[str]]] = [
    (op, attributes, inputs)
    for op in GATES
    for attributes in ({}, {"direction": "reverse"}, BOTH, {"clip": 0.3})
    for inputs in (PLAIN, ALL - {"P"})
] + [
    ("RNN", {"activations": ["Relu"]}, PLAIN),
    ("RNN", {**BOTH, "activations": ["Relu", "Softsign"]}, ALL),
    ("RNN", {"activations": ["Affine"], "activation_alpha": [0.5], "activation_beta": [0.1]}, ALL),
    ("RNN", {"activations": ["LeakyRelu"]}, ALL),
    ("GRU", {"linear_before_reset": 1}, PLAIN),
    ("GRU", {"linear_before_reset": 1, **BOTH}, ALL),
    ("GRU", {"linear_before_reset": 1, "direction": "reverse"}, ALL),
    ("GRU", {"linear_before_reset": 1, "clip": 0.2}, ALL),
    ("GRU", {"activations": ["HardSigmoid", "Softplus"]}, ALL),
    (
        "GRU",
        {"activations": ["ThresholdedRelu", "Elu"], "activation_alpha": [0.1, 0.7]},
        ALL,
    ),
    ("LSTM", {}, ALL),
    ("LSTM", {**BOTH, "clip": 0.4}, ALL),
    ("LSTM", {"input_forget": 1}, ALL),
    (
        "LSTM",
        {
            "activations": ["HardSigmoid", "ScaledTanh", "Relu"],
            "activation_alpha": [0.3, 1.5],
            "activation_beta": [0.4, 0.5],
        },
        ALL,
    ),
]


def _arrays(op: str, attributes: dict[str, Any], inputs: frozenset[str]) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    count, gates = 1 + (attributes.get("direction") == "bidirectional"), GATES[op] * HIDDEN
    shapes = {
        "X": (TIME, BATCH, INPUT),
        "W": (count, gates, INPUT),
        "R": (count, gates, HIDDEN),
        "B": (count, 2 * gates),
        "initial_h": (count, BATCH, HIDDEN),
        "initial_c": (count, BATCH, HIDDEN),
        "P": (count, 3 * HIDDEN),
    }
    arrays = {
        name: rng.uniform(-0.7, 0.7, shape).astype(np.float32) for name, shape in shapes.items()
    }
    arrays["sequence_lens"] = np.array([3, 5, 1], np.int32)
    known = ORDER[: 8 if op == "LSTM" else 6]
    return {name: arrays[name] for name in known if name in inputs}


def _model(op: str, attributes: dict[str, Any], arrays: dict[str, Any]) -> onnx.ModelProto:
    outputs = ["Y", "Y_h", "Y_c"][: 3 if op == "LSTM" else 2]
    names = [name if name in arrays else "" for name in ORDER[: 8 if op == "LSTM" else 6]]
    node = helper.make_node(op, names, outputs, hidden_size=HIDDEN, **attributes)
    values = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in arrays.items()
    ]
    results = [helper.make_tensor_value_info(name, 1, None) for name in outputs]
    graph = helper.make_graph([node], "g", values, results)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)


def _compare(op: str, attributes: dict[str, Any], arrays: dict[str, Any]) -> None:
    model = _model(op, attributes, arrays)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = session.run(None, arrays)
    feeds = {name: torch.from_numpy(array) for name, array in arrays.items()}
    floats = [t.requires_grad_() for t in feeds.values() if t.dtype.is_floating_point]
    outputs = Mirror(ir.from_proto(model))(feeds)
    for got, wanted in zip(outputs.values(), expected, strict=True):
        np.testing.assert_allclose(got.detach().numpy(), wanted, rtol=1e-5, atol=1e-6)
    sum(output.sum() for output in outputs.values()).backward()
    assert all(t.grad is not None and t.grad.abs().sum() > 0 for t in floats)


@pytest.mark.parametrize(("op", "attributes", "inputs"), CASES)
def test_same_as_onnxruntime(op: str, attributes: dict[str, Any], inputs: frozenset[str]) -> None:
    _compare(op, attributes, _arrays(op, attributes, inputs))


@pytest.mark.parametrize("op", ["GRU", "LSTM"])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_an_empty_sequence_ends_in_zeros(op: str, direction: str) -> None:
    attributes = {"direction": direction}
    arrays = _arrays(op, attributes, ALL - {"P"})
    arrays["sequence_lens"] = np.array([0, 4, 2], np.int32)
    _compare(op, attributes, arrays)


@pytest.mark.parametrize("op", list(GATES))
@pytest.mark.parametrize(("time", "batch"), [(0, 2), (3, 0)])
@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_nothing_to_do(op: str, time: int, batch: int, clip: float) -> None:
    handler = {"RNN": rnn, "GRU": gru, "LSTM": lstm}[op]
    weights = torch.randn(1, GATES[op] * HIDDEN, INPUT), torch.randn(1, GATES[op] * HIDDEN, HIDDEN)
    context = Context("n", op, 14, {"clip": clip} if clip else {})
    y, *finals = handler(context, torch.randn(time, batch, INPUT), *weights)
    assert y.shape == (time, 1, batch, HIDDEN)
    assert all(torch.equal(final, torch.zeros(1, batch, HIDDEN)) for final in finals)


@pytest.mark.parametrize("op", list(GATES))
def test_batch_first_is_the_same_transposed(op: str) -> None:
    arrays = _arrays(op, BOTH, ALL - {"P"})
    feeds = {name: torch.from_numpy(array) for name, array in arrays.items()}
    expected = list(Mirror(ir.from_proto(_model(op, BOTH, arrays)))(feeds).values())
    for name in ("X", "initial_h", "initial_c"):
        if name in feeds:
            feeds[name] = feeds[name].transpose(0, 1)
    arrays = {name: tensor.numpy() for name, tensor in feeds.items()}
    model = _model(op, {**BOTH, "layout": 1}, arrays)
    y, *finals = Mirror(ir.from_proto(model))(feeds).values()
    torch.testing.assert_close(y.permute(1, 2, 0, 3), expected[0])
    for got, wanted in zip(finals, expected[1:], strict=True):
        torch.testing.assert_close(got.transpose(0, 1), wanted)


@pytest.mark.parametrize(
    ("op", "fused"),
    [
        ("RNN", {}),
        ("GRU", {"linear_before_reset": 1}),
        ("LSTM", {}),
    ],
)
def test_fused_and_unrolled_have_equal_gradients(op: str, fused: dict[str, Any]) -> None:
    results = []
    # A limit that nothing reaches rules the fused kernels out.
    for attributes in (fused, {**fused, "clip": 1e6}):
        context = Context("n", op, 14, {"direction": "bidirectional", **attributes})
        arrays = _arrays(op, BOTH, ALL - {"P"})
        lengths = arrays.pop("sequence_lens").tolist()
        feeds = [torch.from_numpy(array).double().requires_grad_() for array in arrays.values()]
        handler = {"RNN": rnn, "GRU": gru, "LSTM": lstm}[op]
        outputs = handler(context, *feeds[:4], lengths, *feeds[4:])
        weights = torch.linspace(-1, 1, outputs[0].numel(), dtype=torch.double)
        (outputs[0].flatten() @ weights + sum(y.square().sum() for y in outputs[1:])).backward()
        results.append([*outputs, *(tensor.grad for tensor in feeds)])
    for first, second in zip(*results, strict=True):
        torch.testing.assert_close(first, second)


@pytest.mark.parametrize(
    "attributes",
    [
        {"activations": ["Affine"]},
        {"activations": ["Sine"]},
        {"activations": ["Tanh", "Tanh"]},
        {"direction": "sideways"},
    ],
)
def test_what_is_not_defined_is_refused(attributes: dict[str, Any]) -> None:
    arrays = _arrays("RNN", attributes, PLAIN)
    with pytest.raises(UnsupportedOperatorError, match="RNN"):
        Mirror(ir.from_proto(_model("RNN", attributes, arrays)))
