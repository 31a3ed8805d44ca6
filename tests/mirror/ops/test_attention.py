"""Attention against onnxruntime; FlexAttention by the standard's cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from onnx_cgmq.errors import UnsupportedOperatorError
from onnx_cgmq.mirror import Mirror
from onnx_cgmq.mirror.core.registry import Context
from onnx_cgmq.mirror.ops.attention import attention
from tools.fetch.backend_cases import difference, load

BATCH, QUERIES, KEYS, HEADS, SIZE, PAST = 2, 3, 4, 4, 6, 2


def _random(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(sum(shape)).uniform(-1, 1, shape).astype(np.float32)


def _arrays(heads: int, mask: Any, past: bool) -> dict[str, Any]:
    arrays = {
        "q": _random(BATCH, HEADS, QUERIES, SIZE),
        "k": _random(BATCH, heads, KEYS, SIZE),
        "v": _random(BATCH, heads, KEYS, 5),
        "mask": mask,
    }
    if past:
        arrays["past_key"] = _random(BATCH, heads, PAST, SIZE)
        arrays["past_value"] = _random(BATCH, heads, PAST, 5)
    return arrays


@pytest.mark.parametrize("heads", [4, 2])
@pytest.mark.parametrize("past", [False, True])
@pytest.mark.parametrize("mask", ["none", "truth", "numbers"])
@pytest.mark.parametrize("softcap", [0.0, 0.8])
def test_same_as_onnxruntime(
    same_as_onnxruntime: Callable[..., None], heads: int, past: bool, mask: str, softcap: float
) -> None:
    keys = KEYS + PAST if past else KEYS
    masks = {
        "none": None,
        "truth": np.tri(QUERIES, keys, 1) > 0,
        "numbers": _random(BATCH, 1, QUERIES, keys),
    }
    arrays = _arrays(heads, masks[mask], past)
    outputs = 3 if past else 1
    same_as_onnxruntime("Attention", arrays, outputs, opset=23, softcap=softcap, scale=0.3)


@pytest.mark.parametrize("precision", [0, 1, 11])
def test_fused_and_in_steps_are_the_same(precision: int) -> None:
    case = next(case for case in load() if case.name == "test_attention_4d_causal")
    (inputs, expected), *_ = case.data_sets
    model = ir.from_proto(case.model)
    node = model.graph.node(0)
    if precision:
        node.attributes["softmax_precision"] = ir.AttrInt64("softmax_precision", precision)
    feeds = {name: torch.from_numpy(array) for name, array in inputs.items()}
    got = Mirror(model)(feeds)
    np.testing.assert_allclose(got["Y"].numpy(), expected[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.int32, torch.float64, torch.uint8])
def test_masks_and_values_may_have_types_of_their_own(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 3, 4) for _ in range(3))
    mask = torch.arange(9).reshape(3, 3)
    context = Context("n", "Attention", 23)
    expected = attention(context, q, k, v, mask.to(q.dtype))[0]
    got, _, values = attention(context, q, k, v.double(), mask.to(dtype))
    torch.testing.assert_close(got, expected)
    assert values.dtype is torch.double


@pytest.mark.parametrize("attributes", [{"scale": -1.0}, {"qk_matmul_output_mode": 4}])
def test_what_is_not_defined_is_refused(attributes: dict[str, Any]) -> None:
    case = next(case for case in load() if case.name == "test_attention_4d")
    model = ir.from_proto(case.model)
    for name, value in attributes.items():
        form = ir.AttrFloat32 if isinstance(value, float) else ir.AttrInt64
        model.graph.node(0).attributes[name] = form(name, value)
    with pytest.raises(UnsupportedOperatorError, match="Attention"):
        Mirror(model)


def test_flex_attention() -> None:
    cases = [c for c in load() if c.operators == {"FlexAttention"} and not c.is_expanded]
    assert len(cases) >= 11
    for case in cases:
        mirror = Mirror(ir.from_proto(case.model))
        for inputs, expected in case.data_sets:
            feeds = {name: torch.from_numpy(a).requires_grad_() for name, a in inputs.items()}
            (got,) = mirror(feeds).values()
            assert difference(got.detach().numpy(), expected[0]) is None, case.name
            got.float().square().sum().backward()
            assert all(t.grad is not None and t.grad.abs().sum() > 0 for t in feeds.values())
