"""Output files that can't be written are refused before training; others are written as a whole."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from onnx_cgmq.api.output import check_writable, write_text
from onnx_cgmq.errors import OutputError


def test_check_writable_leaves_no_file_behind(tmp_path) -> None:
    check_writable(tmp_path / "model.onnx", 1000)
    assert not list(tmp_path.iterdir())


def test_check_writable_keeps_an_older_file(tmp_path) -> None:
    (tmp_path / "model.onnx").write_text("old")
    check_writable(tmp_path / "model.onnx", 1000)
    assert (tmp_path / "model.onnx").read_text() == "old"


def test_check_writable_takes_a_file_name_in_the_current_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_writable(Path("model.onnx"), 1000)


def test_check_writable_refuses_a_folder_of_that_name(tmp_path) -> None:
    with pytest.raises(OutputError, match="is a folder"):
        check_writable(tmp_path, 1)


def test_check_writable_refuses_a_missing_folder(tmp_path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        check_writable(tmp_path / "nowhere" / "model.onnx", 1)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="does not exist"):
        check_writable(tmp_path / "file" / "model.onnx", 1)


def test_check_writable_refuses_a_read_only_folder(tmp_path, monkeypatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)
    with pytest.raises(OutputError, match=r"can't write to .*: Permission denied"):
        check_writable(tmp_path / "model.onnx", 1)


def test_check_writable_refuses_a_full_disk_with_the_space_needed(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=999_999))
    check_writable(tmp_path / "model.onnx", 999_999)
    with pytest.raises(OutputError, match=r"999,999 bytes free.*1,000,000 are needed"):
        check_writable(tmp_path / "model.onnx", 1_000_000)


def test_write_text_replaces_an_older_file(tmp_path) -> None:
    write_text(tmp_path / "plan.json", "old")
    write_text(tmp_path / "plan.json", "néw\n")
    assert (tmp_path / "plan.json").read_bytes() == "néw\n".encode()
    assert len(list(tmp_path.iterdir())) == 1


def test_write_text_keeps_the_older_file_if_it_fails(tmp_path, monkeypatch) -> None:
    write_text(tmp_path / "plan.json", "old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OutputError, match=r"plan\.json: No space left on device"):
        write_text(tmp_path / "plan.json", "new")
    assert (tmp_path / "plan.json").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1
