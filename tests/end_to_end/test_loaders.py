"""Runs on a loader that changes its samples at random: it is read anew in each epoch."""

import numpy as np
import onnx
import pytest
import torch

import onnx_cgmq as cgmq

pytestmark = pytest.mark.slow

MODEL = """
    <ir_version: 10, opset_import: ["" : 21]>
    linear (float[n, 3] x) => (float[n, 3] scores)
    <float[3, 3] w = {1, 0, 0, 0, 1, 0, 0, 0, 1}> { scores = MatMul(x, w) }
"""


class Noisy(torch.utils.data.Dataset):
    """Samples with noise that is never the same."""

    def __init__(self):
        self.given = []

    def __len__(self):
        return 40

    def __getitem__(self, index):
        noise = torch.rand(3)
        self.given.append(index)
        return torch.eye(3)[index % 3] + noise / 4, index % 3


def held_out():
    return {"x": np.eye(3, dtype=np.float32), "label": np.arange(3)}


@pytest.mark.parametrize(("validation", "passes"), [(held_out, 4), (lambda: None, 1)])
def test_each_epoch_reads_the_loader_anew(validation, passes):
    data = Noisy()
    loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)
    result = cgmq.quantize(
        onnx.parser.parse_model(MODEL), loader, "6.25%", validation=validation(), epochs=4
    )
    assert result.complete
    assert len(data.given) == passes * len(data)
