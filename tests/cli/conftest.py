import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import typer.testing

from onnx_cgmq.api import pipeline
from onnx_cgmq.api.agreement import OutputAgreement
from onnx_cgmq.api.float_agreement import FloatAgreement
from onnx_cgmq.api.result import Result
from onnx_cgmq.api.verification import Check
from onnx_cgmq.cli.app import app
from onnx_cgmq.contract.bits import Granularity, GridForm, Role
from onnx_cgmq.contract.events import (
    EpochDone,
    Finished,
    Limit,
    StageDone,
    StageProgress,
    StageStarted,
    Started,
    StepDone,
)
from onnx_cgmq.contract.plan import BitPlan, PlanCost, TensorPlan
from onnx_cgmq.data.source import open_data
from onnx_cgmq.inspection import inspect
from onnx_cgmq.learn.outcome import Outcome
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.settings.config import Config

FLOAT_AGREEMENT = FloatAgreement(
    samples=100,
    outputs={"scores": OutputAgreement(31.2, 0.5, 300, 0)},
    class_output="scores",
    same_class=0.994,
    classes_compared=100,
    accuracy=0.96,
    float_accuracy=0.98,
)


@pytest.fixture
def cli():
    """Runs the command line; gives exit code, stdout and stderr apart."""

    def run(*arguments):
        return typer.testing.CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


@pytest.fixture
def model(tmp_path):
    """A float model: ``scores = x @ w``, 2 inputs and 3 classes."""
    text = """
        <ir_version: 10, opset_import: ["" : 21]>
        linear (float[n, 2] x) => (float[n, 3] scores)
        <float[2, 3] w = {1, 0, 0, 0, 1, 0}> { [matmul] scores = MatMul(x, w) }
    """
    path = tmp_path / "float.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    return path


@pytest.fixture
def data(tmp_path):
    """Four labelled samples, which the model classifies right."""
    labels = np.array([0, 1, 0, 1])
    path = tmp_path / "data.npz"
    np.savez(path, x=np.eye(2, dtype=np.float32)[labels], label=labels)
    return path


@pytest.fixture
def pipeline_run(monkeypatch):
    """Stands in for the pipeline: ``.called`` has its arguments, ``.reason`` says how it ends.

    ``.float_agreement`` and ``.drop`` are those of its result; ``.staged`` makes it go in stages.
    """
    run = SimpleNamespace(
        called=None,
        reason="complete",
        float_agreement=FLOAT_AGREEMENT,
        staged=False,
        drop=None,
    )

    def quantize(model, data, bound, *, output, progress, **rest):
        run.called = {"model": model, "data": data, "bound": bound, "output": output, **rest}
        bound = bound or "3%"
        limits = (Limit(bound, 1000, "bit operations"),)
        length = (0, 0) if run.staged else (10, 2)
        progress(StageStarted("prepare"))
        progress(Started(*length, float_accuracy=0.995, bounds=limits))
        if run.staged:
            progress(StageProgress("allocate", 3, 3))
            progress(StageDone("calibrated", 0.3, 0.98, 1.2))
            progress(StageProgress("reconstruct", 1, 2))
            progress(StageDone("reconstructed", 0.2, None, 2.5))
        else:
            progress(StepDone(1, 10, "guided", loss=0.5, cost_ratio=1.7))
            costs = ((990,), (1000,), True)
            progress(EpochDone(1, "guided", 0.4, 0.3, 0.98, 0.004, *costs, 2.5, 3.5, 1.2))
        result = make_result(onnx.load(model), bound, run.reason)
        size = Path(model).stat().st_size
        result = replace(
            result, float_agreement=run.float_agreement, drop=run.drop, float_bytes=size
        )
        result.save(output)
        progress(Finished(result.complete, run.reason))
        return result

    monkeypatch.setattr(pipeline, "quantize", quantize)
    return run


def make_result(model, bound, reason):
    plan = TensorPlan(
        name="w",
        role=Role.WEIGHT,
        form=GridForm.SYMMETRIC,
        granularity=Granularity.TENSOR,
        shape=(2, 3),
        widths=np.array(4),
        low=np.array(-1.0),
        high=np.array(1.0),
        step=np.array(2 / 15),
        zero_point=np.array(0),
    )
    cost = PlanCost(bops=768, rbop=0.125, macs=6, weight_bytes=3, bops_by_node={"matmul": 768})
    return Result(
        model=ir.from_proto(model),
        plan=BitPlan(bound=bound, tensors={"w": plan}, cost=cost),
        report=inspect(model),
        check=Check(200, 1.0, 0.0, 0.0, 0.97, 0.97, 768, 0.125, 3, bound, True),
        outcome=Outcome(
            complete=reason == "complete",
            reason=reason,
            epochs=1.5,
            best_epoch=1,
            validation_loss=0.3,
            validation_accuracy=0.97,
        ),
        mirror=Mirror(model),
        history=(),
        config=Config(),
        held_out=open_data({"x": np.eye(2, dtype=np.float32)}, ir.from_proto(model)),
    )


@pytest.fixture
def only_json():
    """Parses stdout, which must be one JSON document."""
    return lambda result: json.loads(result.stdout)
