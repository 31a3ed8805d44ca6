from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import helper

from onnx_cgmq.mirror import Mirror

Compare = Callable[..., None]


@pytest.fixture
def same_as_onnxruntime() -> Compare:
    """Runs one node in the mirror and in onnxruntime, forward; and backward in the mirror."""

    def compare(
        op_type: str,
        arrays: Mapping[str, Any],
        outputs: Mapping[str, np.dtype[Any] | type] | int = 1,
        *,
        domain: str = "",
        opset: int = 17,
        reaches: bool = True,
        **attributes: Any,
    ) -> None:
        """Compares.

        Args:
            op_type: Operator.
            arrays: Its inputs by name, in order; ``None`` for an omitted one.
            outputs: Types by name, an empty name for an unused one; or a number of float outputs.
            domain: Operator domain.
            opset: Version of the standard's domain.
            reaches: Whether gradients reach all float inputs.
            **attributes: Of the node.
        """
        if isinstance(outputs, int):
            outputs = {f"y{index}": np.float32 for index in range(outputs)}
        feeds = {name: array for name, array in arrays.items() if array is not None}
        names = [name if name in feeds else "" for name in arrays]
        node = helper.make_node(op_type, names, list(outputs), domain=domain, **attributes)
        values = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in feeds.items()
        ]
        results = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), None
            )
            for name, dtype in outputs.items()
            if name
        ]
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
        graph = helper.make_graph([node], "g", values, results)
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        expected = session.run(None, feeds)
        tensors = {name: torch.from_numpy(np.asarray(array)) for name, array in feeds.items()}
        floats = [t.requires_grad_() for t in tensors.values() if t.dtype.is_floating_point]
        got = list(Mirror(ir.from_proto(model))(tensors).values())
        for ours, theirs in zip(got, expected, strict=True):
            assert ours.detach().numpy().dtype == theirs.dtype
            np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=1e-4, atol=1e-5)
        if reaches:
            torch.stack([y.square().sum() for y in got if y.requires_grad]).sum().backward()
            assert all(t.grad is not None and t.grad.isfinite().all() for t in floats)
            assert all(t.grad is not None and t.grad.abs().sum() > 0 for t in floats)

    return compare
