"""A checkpoint is complete or missing, and only the run that wrote it can load it."""

from __future__ import annotations

import pytest
import torch

from onnx_cgmq.errors import ConfigError, OutputError
from onnx_cgmq.learn import checkpoint as checkpoints
from onnx_cgmq.learn.checkpoint import Checkpoint

STATE = {"step": 7, "loss": float("inf"), "none": None, "weights": {"w": torch.arange(3.0)}}


def test_a_saved_checkpoint_is_loaded(tmp_path) -> None:
    checkpoint = Checkpoint(tmp_path / "run.checkpoint", "settings")
    assert checkpoint.load() is None
    checkpoint.save({"step": 1})
    checkpoint.save(STATE)
    loaded = Checkpoint(tmp_path / "run.checkpoint", "settings").load()
    assert torch.equal(loaded["weights"].pop("w"), torch.arange(3.0))
    assert loaded == {**STATE, "weights": {}}
    assert [path.name for path in tmp_path.iterdir()] == ["run.checkpoint"]
    checkpoint.remove()
    checkpoint.remove()
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_another_run_is_refused(tmp_path) -> None:
    Checkpoint(tmp_path / "c", "these settings").save(STATE)
    with pytest.raises(ConfigError, match="another model, bound or settings"):
        Checkpoint(tmp_path / "c", "those settings").load()


def test_a_checkpoint_of_another_version_is_refused(tmp_path, monkeypatch) -> None:
    Checkpoint(tmp_path / "c", "settings").save(STATE)
    monkeypatch.setattr(checkpoints, "_VERSION", 99)
    with pytest.raises(ConfigError):
        Checkpoint(tmp_path / "c", "settings").load()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off"])
def test_a_damaged_checkpoint_is_refused(tmp_path, content) -> None:
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(ConfigError, match=r"can't be read \(\w+\); delete it"):
        Checkpoint(tmp_path / "c", "settings").load()


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path) -> None:
    torch.save([1, 2], tmp_path / "c")
    with pytest.raises(ConfigError, match="can't be read"):
        Checkpoint(tmp_path / "c", "settings").load()


@pytest.mark.parametrize(
    ("error", "raised"),
    [(OSError("disk full"), OutputError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_a_failed_save_keeps_the_last_checkpoint(tmp_path, monkeypatch, error, raised) -> None:
    checkpoint = Checkpoint(tmp_path / "c", "settings")
    checkpoint.save({"step": 1})

    def fail(content: object, path) -> None:
        path.write_bytes(b"half")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", fail)
        with pytest.raises(raised):
            checkpoint.save({"step": 2})
    assert checkpoint.load() == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_checkpoint_in_a_missing_folder_is_an_output_error(tmp_path) -> None:
    with pytest.raises(OutputError, match="nowhere"):
        Checkpoint(tmp_path / "nowhere" / "c", "settings").save(STATE)
