from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

DOMAIN = "com.microsoft"


def _random(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(sum(shape)).uniform(-1, 1, shape).astype(np.float32)


@pytest.mark.parametrize(
    ("activation", "parameters"),
    [
        ("Relu", []),
        ("Tanh", []),
        ("Sigmoid", []),
        ("HardSwish", []),
        ("LeakyRelu", [0.3]),
        ("Clip", [-0.2, 0.5]),
        ("HardSigmoid", [0.3, 0.4]),
    ],
)
@pytest.mark.parametrize("added", [False, True])
def test_fused_conv(
    same_as_onnxruntime: Callable[..., None], activation: str, parameters: list[float], added: bool
) -> None:
    arrays = {
        "x": _random(2, 3, 5, 5),
        "w": _random(4, 3, 3, 3),
        "b": _random(4),
        "z": _random(2, 4, 3, 3) if added else None,
    }
    attributes: dict[str, Any] = {"activation_params": parameters} if parameters else {}
    same_as_onnxruntime(
        "FusedConv",
        arrays,
        domain=DOMAIN,
        activation=activation,
        strides=[2, 2],
        pads=[1, 1, 1, 1],
        **attributes,
    )


@pytest.mark.parametrize(
    ("activation", "numbers"),
    [
        ("Relu", {}),
        ("Tanh", {}),
        ("Sigmoid", {}),
        ("Softplus", {}),
        ("Softsign", {}),
        ("LeakyRelu", {"alpha": 0.3}),
        ("Elu", {"alpha": 0.5}),
        ("Celu", {"alpha": 0.5}),
        ("ThresholdedRelu", {"alpha": 0.1}),
        ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
        ("Selu", {"alpha": 1.6, "gamma": 1.1}),
    ],
)
def test_fused_gemm(
    same_as_onnxruntime: Callable[..., None], activation: str, numbers: dict[str, float]
) -> None:
    arrays = {"a": _random(3, 4), "b": _random(5, 4), "c": _random(5)}
    same_as_onnxruntime(
        "FusedGemm",
        arrays,
        domain=DOMAIN,
        transB=1,
        alpha=0.7,
        beta=1.3,
        activation=activation,
        **{f"activation_{name}": value for name, value in numbers.items()},
    )


@pytest.mark.parametrize(
    ("a", "b", "attributes"),
    [
        ((2, 3, 4), (2, 4, 5), {"alpha": 0.5}),
        ((2, 4, 3), (4, 5), {"transA": 1}),
        ((2, 3, 4), (2, 5, 4), {"transB": 1, "alpha": -2.0}),
        ((2, 3, 4), (3, 4, 5), {"transBatchA": 1}),
        ((2, 3, 4), (5, 3, 4), {"transBatchA": 1, "transBatchB": 1, "transB": 1}),
        ((4, 3, 2), (3, 4, 5), {"transBatchA": 1, "transA": 1}),
        ((4,), (2, 4, 5), {}),
    ],
)
def test_fused_matmul(
    same_as_onnxruntime: Callable[..., None],
    a: tuple[int, ...],
    b: tuple[int, ...],
    attributes: dict[str, Any],
) -> None:
    arrays = {"a": _random(*a), "b": _random(*b)}
    same_as_onnxruntime("FusedMatMul", arrays, domain=DOMAIN, **attributes)
