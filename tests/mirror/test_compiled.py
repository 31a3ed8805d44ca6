"""A gated mirror under ``torch.compile``: one graph, with the same outputs and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.support.toys import convnet, gated_mirror

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_a_gated_mirror_compiles_to_one_graph(granularity: str) -> None:
    _, mirror, data = gated_mirror(convnet(), granularity=granularity)
    for quantizer in mirror.quantizers.values():
        width = 4 if 4 in quantizer.spec.ladder.widths else 8
        quantizer.set_gate(quantizer.gate_for(np.full(quantizer.spec.gate_shape, width)))
    x = torch.from_numpy(data.batch(np.arange(8)).inputs["x"])

    def run(call) -> tuple[torch.Tensor, list[torch.Tensor]]:
        y = call({"x": x})["y"]
        learned = [p for p in mirror.parameters() if p.requires_grad]
        return y, list(torch.autograd.grad(y.square().mean(), learned, allow_unused=True))

    y, gradients = run(mirror)
    torch._dynamo.reset()
    compiled_y, compiled = run(torch.compile(mirror, fullgraph=True, backend="aot_eager"))
    torch.testing.assert_close(compiled_y, y)
    assert any(gradient is not None for gradient in gradients)
    for one, other in zip(compiled, gradients, strict=True):
        assert (one is None) == (other is None)
        if other is not None:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
