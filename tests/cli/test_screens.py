"""What every command shows at 80 and at 120 columns is what ``screens/`` has.

After a change, ``pytest tests/cli/test_screens.py --write-screens`` writes the screens anew; their
difference is then reviewed like that of any other file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import typer.testing

from onnx_cgmq.api import benchmark, measured_costs
from onnx_cgmq.cli import say
from onnx_cgmq.cli.app import app
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.graph.files.load import save_model
from onnx_cgmq.settings.cost_table import CostTable
from onnx_cgmq.writing.write_back import write_back
from tests.support.plans import make_plan
from tests.support.toys import convnet

FOLDER = Path(__file__).parent / "screens"

RUN = "quantize float.onnx --data data.npz --bound 12.5% -o out.onnx"
SCREENS = {
    "help": "--help",
    "quantize-help": "quantize --help",
    "curve-help": "curve --help",
    "sensitivity-help": "sensitivity --help",
    "inspect-help": "inspect --help",
    "verify-help": "verify --help",
    "bench-help": "bench --help",
    "export-help": "export --help",
    "targets-help": "targets --help",
    "quantize": f"{RUN} --epochs 2",
    "quantize-details": f"{RUN} --details",
    "quantize-stopped": f"{RUN} --epochs 2",
    "quantize-wrong": "quantize float.onnx --data data.npz -o out.onnx",
    "inspect": "inspect deep.onnx",
    "inspect-why": "inspect deep.onnx --why *conv*",
    "inspect-wrong": "inspect nowhere.onnx",
    "verify": "verify float.onnx float.onnx --data data.npz --bound 100%",
    "bench": "bench float.onnx deep.onnx",
    "targets": "targets",
    "targets-one": "targets ort-cpu",
    "targets-measure": "targets --measure",
}

NAMES = {
    "k1": "encoder.stages.0.blocks.0.conv.weight",
    "c1": "encoder.stages.0.blocks.0.conv.bias",
    "k2": "encoder.stages.1.blocks.0.depthwise.conv.weight",
}


def deep_model() -> onnx.ModelProto:
    """A network whose weights and nodes have long names, as exporters give them."""
    model = convnet()
    for tensor in model.graph.initializer:
        tensor.name = NAMES.get(tensor.name, tensor.name)
    for node in model.graph.node:
        node.input[:] = [NAMES.get(name, name) for name in node.input]
        node.name = f"/encoder/stages/{node.name}/{node.op_type}_function"
    return model


@pytest.fixture
def folder(model: Path, data: Path, tmp_path: Path, monkeypatch: Any) -> Path:
    """The current folder, with the files that the commands read; timing is made up."""
    gated = insert_gates(
        deep_model(), target="generic", granularity="channel", activation_granularity="tensor"
    )
    specs = {name: spec for name, (_, spec) in quantizer_nodes(gated).items()}
    widths = {name: np.full(spec.gate_shape, 8) for name, spec in specs.items()}
    widths[NAMES["k1"]][::2] = 4
    widths[NAMES["k2"]][:] = 16
    save_model(write_back(gated, make_plan(gated, widths)), tmp_path / "deep.onnx")
    monkeypatch.chdir(tmp_path)
    timing = benchmark.Timing("float.onnx", 1.5, 1.4, 1.6, 1.0, 4096, 8_500_000, 1.0, 0.0, 0.99)
    faster = benchmark.Timing(
        "models/deep.onnx", 0.75, 0.7, 0.8, 0.5, 1_234_567, None, 0.994, 0.01, 0.98
    )
    made = benchmark.Benchmark((timing, faster), "1.0", 1, 1, 20, False, ("a note on the data",))
    monkeypatch.setattr(benchmark, "bench", lambda *_, **__: made)

    def measured(*, progress: Any) -> CostTable:
        progress("8 x 8 bits: 0.1 ns")
        return CostTable(unit="ns", float=0.25, activations=(8,), weights={8: (0.125,)})

    monkeypatch.setattr(measured_costs, "measure_costs", measured)
    return tmp_path


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", SCREENS)
def test_screen(
    name: str,
    width: int,
    folder: Path,
    pipeline_run: Any,
    pytestconfig: pytest.Config,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(say, "shown_width", lambda *, err=False: width)
    pipeline_run.staged = name == "quantize-details"
    pipeline_run.reason = "interrupted" if name == "quantize-stopped" else "complete"
    arguments = SCREENS[name].split(" ")
    result = typer.testing.CliRunner().invoke(
        app, arguments, env={"COLUMNS": str(width)}, prog_name="onnx-cgmq"
    )
    command = f"$ onnx-cgmq {SCREENS[name]}"
    lines = [line.rstrip() for line in result.output.splitlines()]
    screen = "\n".join([command, *lines, f"(exit code {result.exit_code})", ""])
    file = FOLDER / f"{name}-{width}.txt"
    if pytestconfig.getoption("--write-screens"):
        file.write_text(screen, encoding="utf-8")
    assert screen == file.read_text(encoding="utf-8")
    assert name == "targets-one" or max(map(len, lines)) <= width  # that is a file's text


def test_there_is_no_other_screen() -> None:
    wanted = {f"{name}-{width}.txt" for name in SCREENS for width in (80, 120)}
    assert wanted == set(os.listdir(FOLDER))
