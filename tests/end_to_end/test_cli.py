"""The command line with nothing replaced: a tiny model, learned, written and looked at."""

import json
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime as ort
import pytest

pytestmark = pytest.mark.slow

BOUND = "3%"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A float model that tells in which half of a vector most of the weight is, and samples."""
    path = tmp_path_factory.mktemp("cli")
    generator = np.random.default_rng(0)
    x = generator.uniform(0, 1, (256, 8)).astype(np.float32)
    label = (x[:, 4:].sum(1) > x[:, :4].sum(1)).astype(np.int64)
    np.savez(path / "data.npz", x=x, label=label)
    # Hidden units: both halves and their sums with noise; the last layer compares the halves.
    halves = np.repeat(np.eye(2), 4, axis=0)
    w1 = np.tile(halves, 4) + generator.normal(0, 0.01, (8, 8))
    w2 = np.tile(np.eye(2), (4, 1))
    initializers = {"w1": w1, "b1": np.full(8, 0.1), "w2": w2, "b2": np.zeros(2)}
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Gemm", ["x", "w1", "b1"], ["hidden"], name="first"),
            onnx.helper.make_node("Relu", ["hidden"], ["active"], name="relu"),
            onnx.helper.make_node("Gemm", ["active", "w2", "b2"], ["scores"], name="last"),
        ],
        "halves",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 8])],
        [onnx.helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["n", 2])],
        [
            onnx.numpy_helper.from_array(value.astype(np.float32), name)
            for name, value in initializers.items()
        ],
    )
    opset = [onnx.helper.make_opsetid("", 21)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=10)
    onnx.save(model, path / "float.onnx")
    return path


def run(folder, *arguments):
    command = [sys.executable, "-m", "onnx_cgmq", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


def quantize(folder, output, *options):
    # fmt: off
    return run(
        folder, "quantize", "float.onnx", "--data", "data.npz", "--bound", BOUND, "-o", output,
        "--batch-size", 32, "--epochs", 4, *options,
    )
    # fmt: on


def test_quantize_inspect_verify(folder):
    done = quantize(folder, "out.onnx", "--log", "metrics.jsonl", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["complete"]
    assert document["cost"]["rbop"] <= 0.03
    assert document["check"]["within_bound"]

    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    moments = ("begins", "progress", "step")
    assert [event["event"] for event in events if event["event"] not in moments] == [
        "started", *["stage"] * 2, *["epoch"] * 4, "finished"
    ]  # fmt: skip

    inspected = run(folder, "inspect", "out.onnx", "--json")
    assert json.loads(inspected.stdout)["bops"] == document["cost"]["bops"]

    verified = run(
        folder, "verify", "float.onnx", "out.onnx", "--data", "data.npz", "--bound", BOUND, "--json"
    )
    assert verified.returncode == 0, verified.stderr
    assert json.loads(verified.stdout)["accuracy"] > 0.7

    x = np.load(folder / "data.npz")["x"]
    assert ort.InferenceSession(folder / "out.onnx").run(None, {"x": x})[0].shape == (256, 2)


def test_time_limit_still_writes_a_model_that_keeps_the_bound(folder):
    done = quantize(folder, "limited.onnx", "--time-limit", 0.001, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["reason"] == "time limit"
    assert "best model so far" in done.stderr
    inspected = json.loads(run(folder, "inspect", "limited.onnx", "--json").stdout)
    assert inspected["rbop"] <= 0.03


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--bound", "0.01%"], 5, "the smallest is"),
        (["--data", "nowhere.npz"], 4, "nowhere.npz"),
        (["-o", "missing/out.onnx"], 6, "does not exist"),
        (["-o", "."], 6, "is a folder"),
    ],
)
def test_errors_come_before_training(folder, options, code, message):
    done = quantize(folder, "never.onnx", *options)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "epoch" not in done.stderr
    assert not (folder / "never.onnx").exists()
