"""A checkpoint is complete or missing, and only the run that wrote it can load it."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from onnx_cgmq.api.pipeline import quantize
from onnx_cgmq.contract.events import Notice, StepDone
from onnx_cgmq.contract.run_paths import checkpoint_path
from onnx_cgmq.errors import ConfigError, OutputError
from onnx_cgmq.learn import checkpoint as checkpoints
from onnx_cgmq.learn.checkpoint import Checkpoint
from tests.support.toys import convnet, mlp, toy_data

STATE = {"step": 7, "loss": float("inf"), "none": None, "weights": {"w": torch.arange(3.0)}}
RUN = {"bound": "3%", "seed": "0"}


def test_a_saved_checkpoint_is_loaded(tmp_path) -> None:
    checkpoint = Checkpoint(tmp_path / "run.checkpoint", RUN)
    assert checkpoint.load() is None
    checkpoint.save({"step": 1})
    checkpoint.save(STATE)
    loaded = Checkpoint(tmp_path / "run.checkpoint", RUN).load()
    assert torch.equal(loaded["weights"].pop("w"), torch.arange(3.0))
    assert loaded == {**STATE, "weights": {}}
    assert [path.name for path in tmp_path.iterdir()] == ["run.checkpoint"]
    checkpoint.remove()
    checkpoint.remove()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({**RUN, "seed": "1"}, "its seed;"),
        ({"bound": "4%", "seed": "1"}, "its bound and seed;"),
        ({"bound": "4%", "seed": "1", "labels": "none"}, "its bound, seed and labels;"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, other, named) -> None:
    Checkpoint(tmp_path / "c", RUN).save(STATE)
    with pytest.raises(ConfigError, match=f"belongs to a run that differs in {named}"):
        Checkpoint(tmp_path / "c", other).load()


def test_a_checkpoint_of_another_version_is_refused(tmp_path, monkeypatch) -> None:
    Checkpoint(tmp_path / "c", RUN).save(STATE)
    monkeypatch.setattr(checkpoints, "_VERSION", 99)
    with pytest.raises(ConfigError, match="its version of onnx-cgmq"):
        Checkpoint(tmp_path / "c", RUN).load()


def test_an_earlier_checkpoint_is_named(tmp_path) -> None:
    checkpoint = Checkpoint(tmp_path / "c", RUN)
    assert checkpoint.note_on_earlier() is None
    checkpoint.save(STATE)
    assert "with the same settings, which --resume" in checkpoint.note_on_earlier()
    other = Checkpoint(tmp_path / "c", {**RUN, "seed": "1"})
    assert "differs in its seed; this run overwrites it" in other.note_on_earlier()


def test_a_file_that_is_no_checkpoint_is_not_overwritten(tmp_path) -> None:
    torch.save({"weights": torch.ones(3)}, tmp_path / "c")
    with pytest.raises(OutputError, match="not a whole checkpoint of onnx-cgmq; move or delete"):
        Checkpoint(tmp_path / "c", RUN).note_on_earlier()


def run(output: Path, **settings):
    model = mlp()
    settings = {"epochs": 2, "batch_size": 64, "output": output, **settings}
    return quantize(model, toy_data(model), "3%", **settings)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory) -> bytes:
    """The checkpoint of a run that stopped in its second epoch."""
    output = tmp_path_factory.mktemp("run") / "out.onnx"

    def stop(event) -> None:
        if isinstance(event, StepDone) and event.step == 4:
            raise KeyboardInterrupt

    run(output, progress=stop)
    return checkpoint_path(output).read_bytes()


def test_a_run_names_the_checkpoint_that_it_overwrites(interrupted, tmp_path) -> None:
    checkpoint_path(tmp_path / "out.onnx").write_bytes(interrupted)
    events: list[Any] = []
    run(tmp_path / "out.onnx", progress=events.append)
    notes = [event.message for event in events if isinstance(event, Notice)]
    assert any("out.checkpoint is the checkpoint of an earlier run" in note for note in notes)


class Evil:
    """Would create a file when it is unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("was-here"),))


def saved(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Loads a checkpoint, changes it, and writes what the change returns, or the content."""

    def damage(path: Path) -> None:
        content = torch.load(path, weights_only=True)
        changed = change(content)
        torch.save(content if changed is None else changed, path)

    return damage


def state(**entries: Any) -> Callable[[Path], None]:
    return saved(lambda content: content["state"].update(entries))


def first_weight(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    def changed(content: dict[str, Any]) -> None:
        mirror = content["state"]["mirror"]
        name = next(iter(mirror))
        mirror[name] = change(mirror[name])

    return saved(changed)


def adam(content: dict[str, Any]) -> dict[str, Any]:
    states: dict[str, Any] = content["state"]["optimizer"]["state"]
    return states[next(iter(states))]


def flip_a_byte(path: Path) -> None:
    """Changes a stored number, which the file's format does not notice."""
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data/3"))
        stored = archive.read(name)
    content = bytearray(path.read_bytes())
    content[content.index(stored) + len(stored) - 1] ^= 0x40
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_bytes(b"not a checkpoint"),
    "start of a zip": lambda path: path.write_bytes(b"PK\x03\x04 cut off"),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "zeros in the middle": lambda path: path.write_bytes(
        path.read_bytes()[:2000] + bytes(2000) + path.read_bytes()[4000:]
    ),
    "a flipped bit": flip_a_byte,
    "a pickle": lambda path: path.write_bytes(pickle.dumps({"version": 4})),
    "a pickle of code": lambda path: path.write_bytes(pickle.dumps(Evil())),
    "code": saved(lambda content: {**content, "state": Evil()}),
    "an archive of arrays": lambda path: np.savez(path.open("wb"), x=np.ones(3)),
    "a list": saved(lambda content: [1, 2]),
    "a tensor": saved(lambda content: torch.ones(3)),
    "a module's weights": saved(lambda content: content["state"]["mirror"]),
    "no version": saved(lambda content: content.pop("version") and None),
    "the version is a tensor": saved(lambda content: content.update(version=torch.ones(2))),
    "the version is text": saved(lambda content: content.update(version="4")),
    "no fingerprint": saved(lambda content: content.pop("fingerprint") and None),
    "a fingerprint of tensors": saved(
        lambda content: content.update(fingerprint={"bound": torch.ones(2)})
    ),
    "a fingerprint of another type": saved(lambda content: content.update(fingerprint="3%")),
    "no digest": saved(lambda content: content.pop("digest") and None),
    "no state": saved(lambda content: content.pop("state") and None),
    "the state is None": saved(lambda content: content.update(state=None)),
    "the state holds itself": saved(lambda content: content["state"].update(x=content["state"])),
    "an empty state": saved(lambda content: content.update(state={})),
    "a missing entry": saved(lambda content: content["state"].pop("guide") and None),
    "one more entry": state(more=1),
    "the step is text": state(step="3"),
    "the step is NaN": state(step=float("nan")),
    "the step is negative": state(step=-5),
    "too many epochs": state(epochs=10**9),
    "not settled": state(settled=False),
    "the best is another type": state(best=[1, 2]),
    "the best has no state": saved(lambda content: content["state"]["best"].update(state=None)),
    "no weights": state(mirror=OrderedDict()),
    "weights of another shape": first_weight(lambda weight: torch.ones(3, 3)),
    "weights of NaN": first_weight(lambda weight: weight * float("nan")),
    "weights of another type": first_weight(lambda weight: weight.long()),
    "huge weights": first_weight(lambda weight: torch.ones(1).expand(1 << 20, 1 << 20)),
    "sparse weights": first_weight(lambda weight: torch.eye(4).to_sparse()),
    "weights without data": first_weight(lambda weight: torch.empty(3, device="meta")),
    "complex weights": first_weight(lambda weight: torch.ones(3, dtype=torch.complex64)),
    "moments of another shape": saved(lambda content: adam(content).update(exp_avg=torch.ones(2))),
    "missing moments": saved(lambda content: adam(content).pop("exp_avg") is None or None),
    "no groups": saved(lambda content: content["state"]["optimizer"].update(param_groups=[])),
    "no statistics": saved(lambda content: content["state"]["guide"].update(statistics={})),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_refused(interrupted, tmp_path, monkeypatch, name) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "out.checkpoint"
    path.write_bytes(interrupted)
    run_of_it = torch.load(path, weights_only=True)["fingerprint"]
    DAMAGES[name](path)
    before = path.read_bytes()
    assert before != interrupted
    with pytest.raises(ConfigError, match=r"is damaged.*delete it to start anew"):
        Checkpoint(path, run_of_it).load()
    assert path.read_bytes() == before
    assert not (tmp_path / "was-here").exists()


@pytest.mark.parametrize("name", ["truncated", "the step is text", "weights of another shape"])
def test_a_run_does_not_go_on_from_a_damaged_checkpoint(interrupted, tmp_path, name) -> None:
    path = checkpoint_path(tmp_path / "out.onnx")
    path.write_bytes(interrupted)
    DAMAGES[name](path)
    with pytest.raises(ConfigError, match="is damaged"):
        run(tmp_path / "out.onnx", resume=True)


def test_a_state_of_another_mirror_is_refused(interrupted, tmp_path) -> None:
    path = checkpoint_path(tmp_path / "out.onnx")
    path.write_bytes(interrupted)
    content = torch.load(path, weights_only=True)
    other = tmp_path / "other.onnx"

    def stop(event) -> None:
        if isinstance(event, StepDone):
            raise KeyboardInterrupt

    quantize(convnet(), toy_data(convnet()), "3%", output=other, progress=stop, epochs=1)
    foreign = torch.load(checkpoint_path(other), weights_only=True)["state"]
    Checkpoint(path, content["fingerprint"]).save(foreign)
    with pytest.raises(ConfigError, match="is damaged"):
        run(tmp_path / "out.onnx", resume=True)


@pytest.mark.parametrize(
    ("error", "raised"),
    [(OSError("disk full"), OutputError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_a_failed_save_keeps_the_last_checkpoint(tmp_path, monkeypatch, error, raised) -> None:
    checkpoint = Checkpoint(tmp_path / "c", RUN)
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
        Checkpoint(tmp_path / "nowhere" / "c", RUN).save(STATE)
