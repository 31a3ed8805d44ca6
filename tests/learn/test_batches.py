"""Batches become tensors: without a copy if none is needed, without a warning if one is."""

from __future__ import annotations

import warnings

import numpy as np
import torch

from onnx_cgmq.data.samples import Batch
from onnx_cgmq.learn.batches import answers, tensors

CPU = torch.device("cpu")


def test_tensors_of_writable_contiguous_arrays_are_not_copied() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    result = tensors({"x": array})["x"]
    array[0, 0] = 7
    assert float(result[0, 0]) == 7


def test_tensors_of_other_arrays_are_copies_of_the_same_type() -> None:
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


def test_answers_are_labels_or_target_values_or_both() -> None:
    x, rows = {"x": np.zeros((3, 2), np.float32)}, np.arange(3)
    labels, targets = np.array([2, 1, 0]), {"y": np.array([4.0, 5.0, 6.0], np.float32)}
    assert answers(Batch(x, None, rows, 3), 3, CPU) is None
    assert answers(Batch(x, labels, rows, 3), 2, CPU).tolist() == [2, 1]
    only = answers(Batch(x, None, rows, 3, targets), 2, CPU)
    assert {name: value.tolist() for name, value in only.items()} == {"y": [4, 5]}
    both = answers(Batch(x, labels, rows, 3, targets), 3, CPU)
    assert {name: value.tolist() for name, value in both.items()} == {
        "y": [4, 5, 6],
        "label": [2, 1, 0],
    }
