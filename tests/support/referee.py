"""The mirror against onnxruntime and against finite differences, on graphs written as text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import torch

from onnx_cgmq.mirror import Mirror


def parse(signature: str, outputs: str, body: str, opset: int = 22, ml: int = 3) -> onnx.ModelProto:
    """A model from ``(float[2,3] x) => (float[m] y) { y = Op(x) }`` in parts."""
    imports = f'["": {opset}, "ai.onnx.ml": {ml}]'
    text = f"<ir_version: 10, opset_import: {imports}> g ({signature}) => ({outputs}) {{ {body} }}"
    return onnx.parser.parse_model(text)


def run_mirror(
    model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], *, gradient: bool = False
) -> list[torch.Tensor]:
    """The outputs of the mirror; with ``gradient`` the float inputs require one."""
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in feeds.items()}
    for tensor in tensors.values():
        if gradient and tensor.is_floating_point():
            tensor.requires_grad_()
    return list(Mirror(ir.from_proto(model))(tensors).values())


def assert_like_onnxruntime(
    model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], rtol: float = 1e-4, atol: float = 1e-5
) -> list[np.ndarray]:
    """Asserts equal types, shapes and values (integers exactly); returns onnxruntime's."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    wanted = session.run(None, dict(feeds))
    for got, expected in zip(run_mirror(model, feeds), wanted, strict=True):
        assert got.shape == expected.shape
        exact = expected.dtype.kind not in "f"
        assert got.detach().numpy().dtype == expected.dtype
        tolerance = {"rtol": 0, "atol": 0} if exact else {"rtol": rtol, "atol": atol}
        np.testing.assert_allclose(got.detach().numpy(), expected, **tolerance)
    return wanted


def assert_gradients(
    model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], *, fast: bool = False
) -> None:
    """Compares the gradients of all float64 inputs with finite differences.

    With ``fast`` along one random direction alone, for nodes with many elements.
    """
    mirror = Mirror(ir.from_proto(model))
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in feeds.items()}
    floats = {name: x.requires_grad_() for name, x in tensors.items() if x.is_floating_point()}
    assert floats

    def run(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = mirror({**tensors, **dict(zip(floats, values, strict=True))}).values()
        return tuple(output for output in outputs if output.is_floating_point())

    assert torch.autograd.gradcheck(run, tuple(floats.values()), fast_mode=fast)


def optimized_operators(model: ir.Model, folder: Path) -> list[str]:
    """Operator types of the graph that onnxruntime runs, in order."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    content = ir.to_proto(model).SerializeToString()
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node]
