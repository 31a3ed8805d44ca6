from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

X = np.linspace(-4, 4, 24, dtype=np.float32).reshape(2, 3, 4)
BIAS = np.array([0.5, -0.5, 1.0, 2.0], np.float32)


@pytest.mark.parametrize(
    ("op_type", "arrays", "attributes"),
    [
        ("Gelu", {"x": X}, {}),
        ("BiasGelu", {"x": X, "b": BIAS}, {}),
        ("FastGelu", {"x": X}, {}),
        ("FastGelu", {"x": X, "b": BIAS}, {}),
        ("QuickGelu", {"x": X}, {}),
        ("QuickGelu", {"x": X}, {"alpha": 0.8}),
    ],
)
def test_same_as_onnxruntime(
    same_as_onnxruntime: Callable[..., None],
    op_type: str,
    arrays: dict[str, Any],
    attributes: dict[str, Any],
) -> None:
    same_as_onnxruntime(op_type, arrays, domain="com.microsoft", **attributes)
