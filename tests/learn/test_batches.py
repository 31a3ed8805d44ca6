"""Batches as tensors: no copy where none is needed, no warning where one is."""

from __future__ import annotations

import warnings

import numpy as np
import torch

from onnx_cgmq.learn.batches import tensors


def test_writable_contiguous_arrays_are_not_copied() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    result = tensors({"x": array})["x"]
    array[0, 0] = 7
    assert float(result[0, 0]) == 7


def test_others_are_copied_with_their_values_and_types() -> None:
    read_only = np.arange(6, dtype=np.int64).reshape(2, 3)
    read_only.flags.writeable = False
    arrays = {"frozen": read_only, "transposed": np.arange(6.0).reshape(2, 3).T}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = tensors(arrays)
    assert list(result) == ["frozen", "transposed"]
    for name, array in arrays.items():
        np.testing.assert_array_equal(result[name].numpy(), array)
        assert result[name].numpy().dtype == array.dtype
        result[name][0, 0] = 9
        assert array[0, 0] == 0
    assert result["frozen"].dtype == torch.int64
