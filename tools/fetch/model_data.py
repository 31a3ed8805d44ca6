"""Inputs for the models of ``tools/fetch/models.py``: real files, rendered text, images, sound.

No labels: the float model is the teacher. Everything follows from a seed, but for the files found
on the machine.
"""

from __future__ import annotations

import io
import random
import string
import sys
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Arrays = dict[str, npt.NDArray[Any]]
Generator = np.random.Generator

FILE_FOLDERS = (Path(sys.base_prefix), Path(np.__file__).parent.parent, Path("/usr/share"))
_HEAD = _TAIL = 1024  # bytes that magika reads of each end
_BLOCK = 4096
_PADDING = 256  # its token for "no byte"
_SMALLEST_FILE, _LARGEST_FILE = 16, 1 << 22


def file_bytes(count: int, seed: int, folders: tuple[Path, ...] = FILE_FOLDERS) -> Arrays:
    """Files as magika reads them: the first and last 1,024 bytes without surrounding white space.

    Suffixes take turns, so that no kind of file prevails.
    """
    kinds: dict[str, list[Path]] = defaultdict(list)
    for path in sorted({path for folder in folders for path in folder.rglob("*")}):
        if path.is_file() and not path.is_symlink():
            kinds[path.suffix.lower()].append(path)
    shuffle = random.Random(seed)
    for paths in kinds.values():
        shuffle.shuffle(paths)
    names = sorted(kinds)
    shuffle.shuffle(names)
    rows = []
    for path in (p for group in zip_longest(*(kinds[name] for name in names)) for p in group if p):
        if _SMALLEST_FILE <= path.stat().st_size <= _LARGEST_FILE:
            rows.append(_tokens(path.read_bytes()))
        if len(rows) == count:
            break
    shuffle.shuffle(rows)
    return {"bytes": np.stack(rows)}


def _tokens(content: bytes) -> npt.NDArray[np.int32]:
    head = content[:_BLOCK].lstrip()[:_HEAD]
    tail = content[-_BLOCK:].rstrip()[-_TAIL:]
    row = np.full(_HEAD + _TAIL, _PADDING, np.int32)
    row[: len(head)] = np.frombuffer(head, np.uint8)
    row[len(row) - len(tail) :] = np.frombuffer(tail, np.uint8)
    return row


def text_lines(count: int, seed: int, width: int = 160, turned: float = 0.0) -> Arrays:
    """Lines of text ``[N, 3, 48, width]`` in -1..1, a part of them upside down."""
    generator = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        image = _paper((width, 48), generator)
        size = int(generator.integers(24, 38))
        room = max(2, int(width / size * 1.6))
        _write(image, (int(generator.integers(2, 8)), 5), _text(room, generator), size, generator)
        images.append(image.rotate(180) if generator.random() < turned else image)
    return {"x": np.stack([_planes(image) for image in images])}


def text_pages(count: int, seed: int, shape: tuple[int, int] = (160, 256)) -> Arrays:
    """Pages with some lines of text ``[N, 3, height, width]`` in -1..1."""
    generator = np.random.default_rng(seed)
    height, width = shape
    pages = []
    for _ in range(count):
        page = _paper((width, height), generator)
        top = int(generator.integers(4, 24))
        while top < height - 20:
            size = int(generator.integers(12, 30))
            left = int(generator.integers(4, width // 3))
            text = _text(int((width - left) / size * 1.6), generator)
            _write(page, (left, top), text, size, generator)
            top += int(size * generator.uniform(1.3, 2.5))
        pages.append(_planes(page))
    return {"x": np.stack(pages)}


def _paper(size: tuple[int, int], generator: Generator) -> Image.Image:
    """A light, uneven background."""
    shade = generator.integers(150, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(shade).resize(size, Image.Resampling.BICUBIC)


def _text(length: int, generator: Generator) -> str:
    letters = string.ascii_letters + string.digits + "    .,:-%&"
    return "".join(generator.choice(list(letters), size=max(2, length))).strip() or "a"


def _write(
    image: Image.Image, place: tuple[int, int], text: str, size: int, generator: Generator
) -> None:
    ink = tuple(int(value) for value in generator.integers(0, 110, 3))
    font = ImageFont.load_default(size)
    ImageDraw.Draw(image).text(place, text, font=font, fill=ink)
    blurred = image.filter(ImageFilter.GaussianBlur(float(generator.uniform(0, 0.8))))
    image.paste(blurred)


def _planes(image: Image.Image) -> npt.NDArray[np.float32]:
    pixels = np.asarray(image, np.float32).transpose(2, 0, 1)
    return np.ascontiguousarray(pixels / 127.5 - 1)


def photographs(count: int, seed: int, archive: Path) -> Arrays:
    """JPEG files of an archive ``[N, 224, 224, 3]``, BGR less the mean, as open_nsfw reads them."""
    with zipfile.ZipFile(archive) as images:
        names = sorted(name for name in images.namelist() if name.endswith(".jpg"))
        random.Random(seed).shuffle(names)
        return {"input:0": np.stack([_photograph(images.read(name)) for name in names[:count]])}


def _photograph(content: bytes) -> npt.NDArray[np.float32]:
    image = Image.open(io.BytesIO(content)).convert("RGB").resize((256, 256))
    pixels = np.asarray(image.crop((16, 16, 240, 240)), np.float32)[:, :, ::-1]
    return np.ascontiguousarray(pixels - np.array([104, 117, 123], np.float32))


def sounds(count: int, seed: int, rate: int = 16_000) -> npt.NDArray[np.float32]:
    """Pieces of sound ``[N, samples]``: harmonics that glide like a voice's, and noise."""
    generator = np.random.default_rng(seed)
    samples = 576 * rate // 16_000  # 32 ms and what went before
    time = np.arange(samples) / rate
    return np.stack([_sound(time, generator) for _ in range(count)])


def _sound(time: npt.NDArray[np.float64], generator: Generator) -> npt.NDArray[np.float32]:
    pitch = generator.uniform(90, 250) * (1 + generator.uniform(-2, 2) * time)
    phase = 2 * np.pi * np.cumsum(pitch) * (time[1] - time[0])
    voice = sum(generator.random() / k * np.sin(k * phase) for k in range(1, 20))
    noise = generator.normal(size=len(time))
    mixed = generator.uniform(0, 0.3) * voice + generator.uniform(0, 0.05) * noise
    return np.asarray(mixed, np.float32)


def batches(model: str, size: int, archive: Path) -> Iterator[Arrays]:
    """Three batches of input for a model, by its name in ``tools/fetch/models.py``."""
    for seed in range(3):
        if not model.startswith("silero"):
            yield samples(model, size, seed, archive)
            continue
        # The models for two rates have weights for each.
        slow = seed == 2 and model in ("silero-vad", "silero-vad-op18-ifless")
        rate = 8_000 if slow else 16_000
        rows = 1 if model.endswith("openvino-16k") else size
        arrays: Arrays = {"input": sounds(rows, seed, rate)}
        if model.endswith("sequence"):
            arrays |= {name: np.zeros((1, 1, 128), np.float32) for name in "hc"}
        else:
            arrays["state"] = np.zeros((2, rows, 128), np.float32)
        if not model.endswith(("sequence", "openvino-16k", "half")):
            arrays["sr"] = np.array(rate, np.int64)
        yield arrays


def samples(model: str, count: int, seed: int, archive: Path) -> Arrays:
    """Input for one of the models that take samples of one size."""
    if model == "magika":
        return file_bytes(count, seed)
    if model == "ocr-detection":
        return text_pages(count, seed)
    if model == "ocr-recognition":
        return text_lines(count, seed)
    if model == "ocr-orientation":
        return text_lines(count, seed, width=192, turned=0.5)
    return photographs(count, seed, archive)
