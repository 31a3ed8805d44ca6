from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnx_cgmq.graph.files.external import reading


def _resident_bytes() -> int:
    return 4096 * int(Path("/proc/self/statm").read_text().split()[1])


def test_reading_frees_the_memory_of_external_data(tmp_path: Path) -> None:
    values = np.arange(1 << 23, dtype=np.float32)
    values.tofile(tmp_path / "weights")
    tensor = ir.ExternalTensor(
        "weights",
        0,
        values.nbytes,
        ir.DataType.FLOAT,
        shape=ir.Shape(values.shape),
        name="w",
        base_dir=tmp_path,
    )
    before = _resident_bytes()
    with reading(tensor) as array:
        assert array.sum() == values.sum()
        kept = array[-3:]
        assert _resident_bytes() > before + values.nbytes // 2
    assert _resident_bytes() < before + values.nbytes // 2
    np.testing.assert_array_equal(kept, values[-3:])


def test_reading_takes_tensors_in_memory() -> None:
    with reading(ir.tensor([1.0, 2.0])) as array:
        assert array.tolist() == [1.0, 2.0]
