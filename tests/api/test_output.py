"""Output files: refused before training where they can't be written, or would destroy another."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from onnx_cgmq import DataFiles
from onnx_cgmq.api import output as outputs
from onnx_cgmq.api.output import OutputFiles, data_files
from onnx_cgmq.api.pipeline import quantize
from onnx_cgmq.contract.events import StageStarted
from onnx_cgmq.contract.run_paths import checkpoint_path, plan_path
from onnx_cgmq.errors import OutputError
from tests.support.toys import mlp, toy_data


def check(output, log=None, read=()) -> None:
    OutputFiles.of_run(output, log).check({"a source": list(read)})


def test_a_check_leaves_nothing_behind(tmp_path) -> None:
    check(tmp_path / "model.onnx", tmp_path / "log")
    assert not list(tmp_path.iterdir())


def test_an_older_file_is_left_as_it_is(tmp_path) -> None:
    (tmp_path / "model.onnx").write_text("old")
    check(tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_text() == "old"


def test_a_file_name_alone_is_in_the_current_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    check("model.onnx")


def test_plan_and_checkpoint_are_beside_the_model() -> None:
    assert plan_path(Path("a/b.c.onnx")) == Path("a/b.c.plan.json")
    assert checkpoint_path(Path("a/b.c.onnx")) == Path("a/b.c.checkpoint")


@pytest.mark.parametrize("name", [".", "..", ""])
def test_folders_are_refused(tmp_path, monkeypatch, name) -> None:
    monkeypatch.chdir(tmp_path)
    for output, log in ((name, None), ("model.onnx", name)):
        with pytest.raises(OutputError, match="is a folder"):
            check(output, log)


@pytest.mark.parametrize("name", ["model.plan.json", "model.checkpoint"])
def test_folders_in_place_of_what_goes_beside_the_model_are_refused(tmp_path, name) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(OutputError, match=f"{name} is a folder"):
        check(tmp_path / "model.onnx")


def test_a_missing_folder_is_refused(tmp_path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        check(tmp_path / "nowhere" / "model.onnx")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="does not exist"):
        check(tmp_path / "file" / "model.onnx")
    (tmp_path / "model.onnx").symlink_to("nowhere/model.onnx")
    with pytest.raises(OutputError, match="does not exist"):
        check(tmp_path / "model.onnx")


def test_a_read_only_folder_is_refused(tmp_path, monkeypatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)
    with pytest.raises(OutputError, match=r"can't write to .*: Permission denied"):
        check(tmp_path / "model.onnx")


def test_a_name_too_long_for_the_file_system_is_refused(tmp_path) -> None:
    check(tmp_path / ("x" * 244 + ".onnx"))
    for output in ("x" * 252 + ".onnx", "x" * 250 + ".onnx"):  # the second is for its plan
        with pytest.raises(OutputError, match="name too long"):
            check(tmp_path / output)


def test_a_full_disk_is_refused_with_the_space_needed(tmp_path, monkeypatch) -> None:
    files = OutputFiles.of_run(tmp_path / "model.onnx", None)
    needed = (1 << 20) + 6000
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=needed))
    files.check_space(1000)
    with pytest.raises(OutputError, match=rf"{needed:,} bytes free.*{needed + 6:,} are needed"):
        files.check_space(1001)


@pytest.mark.parametrize(
    ("output", "log"),
    [
        ("x.checkpoint", None),
        ("x.onnx", "x.onnx"),
        ("x.onnx", "./sub/../x.onnx"),
        ("x.onnx", "x.plan.json"),
        ("x.onnx", "x.checkpoint"),
        ("x.onnx", "x.onnx.data"),
        ("x.onnx", "link"),
    ],
)
def test_files_of_a_run_that_are_one_file_are_refused(tmp_path, output, log) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to("x.onnx")
    for there in (False, True):
        if there:
            (tmp_path / "x.onnx").write_text("old")
        with pytest.raises(OutputError, match="itself; choose another name"):
            check(tmp_path / output, None if log is None else tmp_path / log)


def test_names_that_differ_in_case_are_one_file_where_case_is_ignored(
    tmp_path, monkeypatch
) -> None:
    check(tmp_path / "x.onnx", tmp_path / "X.ONNX")
    monkeypatch.setattr(outputs, "_ignores_case", lambda _: True)
    with pytest.raises(OutputError, match="itself"):
        check(tmp_path / "x.onnx", tmp_path / "X.ONNX")
    check(tmp_path / "x.onnx", tmp_path / "y.onnx")


@pytest.mark.parametrize("name", ["source", "symbolic", "hard", "sub/../source"])
@pytest.mark.parametrize("log", [False, True])
def test_what_a_run_reads_is_not_overwritten(tmp_path, name, log) -> None:
    source = tmp_path / "source"
    source.write_text("of the user")
    (tmp_path / "sub").mkdir()
    (tmp_path / "symbolic").symlink_to("source")
    os.link(source, tmp_path / "hard")
    paths = (tmp_path / "out.onnx", tmp_path / name) if log else (tmp_path / name, None)
    with pytest.raises(OutputError, match="is a source itself; write to another file"):
        check(*paths, read=[source])


@pytest.mark.parametrize("what", ["x.plan.json", "x.checkpoint", "x.onnx.data"])
def test_what_goes_beside_the_model_overwrites_no_source_either(tmp_path, what) -> None:
    (tmp_path / what).write_text("of the user")
    with pytest.raises(OutputError, match="is a source itself"):
        check(tmp_path / "x.onnx", read=[tmp_path / what])


def test_the_files_of_data(tmp_path) -> None:
    def sorted_names(data) -> list[str]:
        return sorted(str(path.relative_to(tmp_path)) for path in data_files(data))

    (tmp_path / "test_data_set_0").mkdir()
    for name in ("a.npz", "b.npz", "model.onnx", "test_data_set_0/input_0.pb"):
        (tmp_path / name).write_text("")
    assert sorted_names(tmp_path / "a.npz") == ["a.npz"]
    assert sorted_names(str(tmp_path)) == ["a.npz", "b.npz", "test_data_set_0/input_0.pb"]
    folder = tmp_path / "photos"
    (folder / "cats").mkdir(parents=True)
    for name in ("cats/a.jpg", "b.png", "notes.txt", "labels.csv"):
        (folder / name).write_text("")
    given = DataFiles(folder, labels=folder / "labels.csv", tokenizer=tmp_path / "t.json")
    assert sorted_names(given) == [
        "photos/b.png",
        "photos/cats/a.jpg",
        "photos/labels.csv",
        "t.json",
    ]
    assert sorted_names(DataFiles(folder, labels="folders")) == sorted_names(folder)
    assert data_files("package.module:factory") == data_files({}) == data_files(None) == []


def no_training(event) -> None:
    assert isinstance(event, StageStarted), f"{event} came"


@pytest.fixture
def run(tmp_path):
    """Runs on files: a model with external data, and three kinds of data."""
    model = mlp()
    x = toy_data(model)["x"]
    onnx.save(
        model, tmp_path / "m.onnx", save_as_external_data=True, location="w", size_threshold=0
    )
    (tmp_path / "folder").mkdir()
    np.savez(tmp_path / "d.npz", x=x)
    np.savez(tmp_path / "v.npz", x=x)
    np.savez(tmp_path / "folder" / "0.npz", x=x)
    (tmp_path / "link.onnx").symlink_to("m.onnx")

    def start(output, log=None, *, data="d.npz", progress=no_training, **settings):
        return quantize(
            tmp_path / "m.onnx",
            tmp_path / data,
            "6%",
            output=tmp_path / output,
            log=None if log is None else tmp_path / log,
            progress=progress,
            **settings,
        )

    return start


@pytest.mark.parametrize("name", ["m.onnx", "link.onnx", "w", "folder/0.npz", "v.npz"])
def test_a_run_overwrites_nothing_that_it_reads(run, tmp_path, name) -> None:
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for paths in ((name,), ("out.onnx", name)):
        with pytest.raises(OutputError, match="itself; write to another file"):
            run(*paths, data="folder", validation=tmp_path / "v.npz")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_run_writes_through_links(run, tmp_path) -> None:
    (tmp_path / "out.onnx").symlink_to("folder/real.onnx")
    (tmp_path / "out.plan.json").symlink_to("folder/real.json")
    result = run("out.onnx", progress=None, epochs=1)
    assert (tmp_path / "out.onnx").is_symlink()
    onnx.checker.check_model(tmp_path / "folder" / "real.onnx")
    assert (tmp_path / "folder" / "real.json").read_text() == result.plan.to_json() + "\n"

    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OutputError, match="FIFO"):
        result.save(tmp_path / "fifo")
    with pytest.raises(OutputError, match="FIFO"):
        result.plan.save(tmp_path / "fifo")
    for path in ("fifo", "out.onnx"):
        with pytest.raises(OutputError, match="FIFO"):
            run(path, log="fifo")
