"""The files that come with the package are what their docstring says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnx_cgmq.errors import OutputError
from onnx_cgmq.examples import digits

MNIST = Path(__file__).parent.parent.parent / "examples" / "mnist"
NAMES = ["digits-test.npz", "digits-train.npz", "digits.onnx"]


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    return digits(tmp_path_factory.mktemp("digits") / "made" / "if needed")


@pytest.mark.parametrize(("part", "count"), [("train", 3_000), ("test", 1_000)])
def test_digits_are_the_first_ones_of_mnist(example, part: str, count: int) -> None:
    with np.load(getattr(example, part)) as own, np.load(MNIST / f"{part}.npz") as all_of_them:
        assert sorted(own.files) == ["image", "label"]
        assert (own["image"].dtype, own["label"].dtype) == (np.float32, np.int64)
        for name in own.files:
            np.testing.assert_array_equal(own[name], all_of_them[name][:count])


def test_model_is_as_accurate_as_it_says(example) -> None:
    session = ort.InferenceSession(example.model)
    with np.load(MNIST / "test.npz") as arrays:
        (logits,) = session.run(["logits"], {"image": arrays["image"]})
        accuracy = np.mean(np.asarray(logits).argmax(1) == arrays["label"])
    assert accuracy >= 0.988


def test_model_says_nothing_about_where_it_was_made(example) -> None:
    model = onnx.load(example.model)
    onnx.checker.check_model(model, full_check=True)
    assert not model.metadata_props
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)


def test_files_are_written_once(tmp_path: Path) -> None:
    before = digits(tmp_path).model.stat().st_mtime_ns
    assert digits(tmp_path).model.stat().st_mtime_ns == before
    assert sorted(path.name for path in tmp_path.iterdir()) == NAMES


def test_other_files_are_never_overwritten(tmp_path: Path) -> None:
    mine = tmp_path / "digits.onnx"
    mine.write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"digits\.onnx is there already, with other content"):
        digits(tmp_path)
    assert mine.read_bytes() == b"mine"


def test_folder_that_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="can't be written"):
        digits(tmp_path / "file")


def test_they_are_written_from_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "onnx_cgmq.examples"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split()) == NAMES
    assert sorted(path.name for path in tmp_path.iterdir()) == NAMES

    (tmp_path / "digits.onnx").write_bytes(b"mine")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == OutputError.exit_code
    assert done.stderr.startswith("error: digits.onnx is there already")


def test_import_is_light() -> None:
    code = (
        "import sys\n"
        "from onnx_cgmq import examples\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
