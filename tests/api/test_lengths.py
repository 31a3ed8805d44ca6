"""Samples of different lengths, for a model that leaves the length open."""

from __future__ import annotations

import numpy as np
import onnx

from onnx_cgmq.api.pipeline import quantize
from onnx_cgmq.contract.events import StepDone


def words() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    table, w = (", ".join(f"{v:.3f}" for v in rng.normal(size=n)) for n in (40, 12))
    return onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 21]> g (int64[n, length] ids) => (float[n, 3] y)
        <float[10, 4] table = {{{table}}}, float[4, 3] w = {{{w}}}, int64[1] one = {{1}}> {{
            rows = Gather (table, ids)
            h = MatMul (rows, w)
            r = Relu (h)
            y = ReduceMean <keepdims = 0> (r, one)
        }}"""
    )


def test_all_lengths_are_learned_from_and_a_stopped_run_goes_on(tmp_path) -> None:
    rng = np.random.default_rng(1)
    data = [rng.integers(0, 10, (3, 4 + k % 3)) for k in range(12)]
    whole = quantize(words(), data, "8%", epochs=4, batch_size=4)
    assert whole.complete
    assert whole.report.macs == 4 * 4 * 3  # the length of the first sample

    def stop(event) -> None:
        if isinstance(event, StepDone) and event.step == 11:
            raise KeyboardInterrupt

    settings = {"epochs": 4, "batch_size": 4, "output": tmp_path / "out.onnx"}
    assert not quantize(words(), data, "8%", progress=stop, **settings).complete
    resumed = quantize(words(), data, "8%", resume=True, **settings)
    assert resumed.plan.to_json() == whole.plan.to_json()
