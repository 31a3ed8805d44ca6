"""Runs the commands of the how-to pages on real models, exactly as the pages have them.

The models come from PyPI packages: a sentence encoder (all-MiniLM-L6-v2), a text detector
(rapidocr) and a voice detector (silero-vad). The data is text of Python's documentation, rendered
pages, and sounds that are made here. The report has what the runs say of themselves; what was run
before is kept in files beside it. transformers, tokenizers and soundfile are needed besides the
package:

    python -m tools.bench.howto --output docs/benchmarks/howto.md --only text
    python -m tools.bench.howto --output docs/benchmarks/howto.md --only photos --shared SHARED

SHARED holds ``data/imagenet_1k_sample.zip``; the page on photos needs it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from PIL import Image

from tools import ROOT
from tools.fetch import deploy_models
from tools.fetch.model_data import sounds, text_pages
from tools.fetch.models import DEFAULT_CACHE, fetch
from tools.fetch.text_encoder import stored_model

PAGES: Final = ROOT / "docs" / "howto"

_FENCE: Final = re.compile(
    r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$', re.M | re.S
)
_RATE: Final = 16_000
_PHOTOS: Final = 300


class Sources(NamedTuple):
    """Where models and data come from.

    Attributes:
        cache: The folder of the fetched models.
        shared: The folder with ``data/imagenet_1k_sample.zip``; ``None`` if it is not there.
    """

    cache: Path
    shared: Path | None = None


class Block(NamedTuple):
    """A block of code on a page.

    Attributes:
        language: What it is written in.
        title: The file that it stands for; empty for code that runs as it is.
        text: The code.
    """

    language: str
    title: str
    text: str


def blocks(page: str) -> list[Block]:
    """The blocks of code of a how-to page, in order.

    Args:
        page: Its name, such as ``text``.
    """
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    return [Block(m["language"], m["title"] or "", m["text"]) for m in _FENCE.finditer(text)]


def commands(block: Block) -> Iterator[list[str]]:
    """The commands of a block for the shell, as words; those of pip are left out."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0] != "pip":
            yield words


def play(page: str, folder: Path, run: Callable[[list[str]], object]) -> None:
    """Does what a page says, in a folder that has its model and data.

    Args:
        page: The name of the page.
        folder: The current folder.
        run: Runs a command.
    """
    namespace: dict[str, Any] = {"__name__": page}
    for number, block in enumerate(blocks(page), 1):
        if block.title:
            (folder / block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "sh":
            for words in commands(block):
                run(words)
        elif block.language == "python":
            exec(compile(block.text, f"{page}.md, block {number}", "exec"), namespace)


@dataclass(frozen=True)
class Case:
    """A page with a real model.

    Attributes:
        page: The name of the page.
        model: What the model is.
        make: ``(sources, folder)``: puts model and data into a folder, by the names on the page.
        commands: How many commands of the page are run, from those that have the model.
        uses: What a command must name to be run.
    """

    page: str
    model: str
    make: Callable[[Sources, Path], None]
    commands: int
    uses: str


def _encoder(sources: Sources, folder: Path) -> None:
    """Exports the encoder, as a user of transformers would, and writes lines of text."""
    source = sources.cache / "minilm"
    if not source.exists():
        with stored_model() as archive:
            archive.extractall(source)
    (folder / "tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())
    worker = [sys.executable, "-m", "tools.workers.export_encoder"]
    subprocess.run([*worker, str(source), str(folder / "encoder.onnx")], cwd=ROOT, check=True)
    sentences = _sentences()
    for name, part in (("lines", sentences[:300]), ("unseen", sentences[300:600])):
        (folder / f"{name}.txt").write_text("\n".join(part), encoding="utf-8")


def _sentences() -> list[str]:
    """Sentences of Python's own documentation, in an order that follows from a seed."""
    from pydoc_data.topics import topics

    text = " ".join(" ".join(topics[name].split()) for name in sorted(topics))
    found = [s for s in re.split(r"(?<=[.!?]) (?=[A-Z])", text) if 30 <= len(s) <= 300]
    return [found[index] for index in np.random.default_rng(0).permutation(len(found))]


def _photos(sources: Sources, folder: Path) -> None:
    """Takes EfficientNet-lite0, and photos as they are, each of another class."""
    assert sources.shared is not None  # the command line asks for it
    source = deploy_models.efficientnet(sources.cache, sources.shared)
    (folder / "efficientnet.onnx").write_bytes(source.read_bytes())
    (folder / "photos").mkdir()
    with zipfile.ZipFile(sources.shared / "data" / "imagenet_1k_sample.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        for index in np.random.default_rng(0).permutation(len(names))[:_PHOTOS]:
            name = Path(names[index]).name
            (folder / "photos" / name).write_bytes(archive.read(names[index]))


def _detector(sources: Sources, folder: Path) -> None:
    """Takes the detector of rapidocr, and writes rendered pages as PNG files."""
    (folder / "detector.onnx").write_bytes(fetch(sources.cache)["ocr-detection"].read_bytes())
    for seed, (name, count) in enumerate((("pages", 100), ("unseen", 100))):
        (folder / name).mkdir()
        for number, planes in enumerate(text_pages(count, seed)["x"]):
            pixels = np.rint((planes.transpose(1, 2, 0) + 1) * 127.5).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def _voice(sources: Sources, folder: Path) -> None:
    """Takes the voice detector of silero, and writes sounds of some seconds."""
    import soundfile

    (folder / "voice.onnx").write_bytes(fetch(sources.cache)["silero-vad-16k-op15"].read_bytes())
    (folder / "sounds").mkdir()
    for number in range(20):
        sound = np.clip(sounds(120, number, _RATE).reshape(-1), -1, 1)
        soundfile.write(folder / "sounds" / f"{number}.wav", sound, _RATE)


CASES: Final = (
    Case("text", "all-MiniLM-L6-v2", _encoder, 2, "encoder.int.onnx"),
    Case("photos", "EfficientNet-lite0", _photos, 1, "efficientnet.int.onnx"),
    Case("detector", "text detection of rapidocr", _detector, 2, "detector.int.onnx"),
    Case("speech", "silero-vad, 16 kHz", _voice, 1, "voice.int.onnx"),
)


def run_case(case: Case, sources: Sources, folder: Path) -> list[str]:
    """Runs the first commands of a page on a real model.

    Returns:
        Rows of the report, one for each command.
    """
    case.make(sources, folder)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    rows: list[str] = []
    for block in blocks(case.page):
        if block.title:
            (folder / block.title).write_text(block.text, encoding="utf-8")
        for words in commands(block) if block.language == "sh" else ():
            if case.uses not in words or len(rows) == case.commands:
                continue
            began = time.perf_counter()
            command = [sys.executable, "-m", "onnx_cgmq", *words[1:], "--json"]
            done = subprocess.run(
                command,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": path},
                stdout=subprocess.PIPE,
                check=True,
                text=True,
            )
            seconds = time.perf_counter() - began
            rows.append(_row(case, words, json.loads(done.stdout), folder, seconds))
    return rows


def _row(
    case: Case, words: Sequence[str], record: dict[str, Any], folder: Path, seconds: float
) -> str:
    """A command, and what it says."""
    agreement = record.get("float_agreement", record)
    decibels = ", ".join(
        f"{name} {found['snr_db']:.1f} dB"
        for name, found in agreement["outputs"].items()
        if found["snr_db"] is not None
    )
    float_bytes = (folder / words[2]).stat().st_size
    written = (folder / case.uses).stat().st_size
    size = f"{float_bytes / 1e6:.1f} MB to {written / 1e6:.1f} MB"
    shown = f"[{case.page}](../howto/{case.page}.md)"
    return (
        f"| {shown} | {case.model} | `{words[1]}` | {agreement['samples']:,} | {decibels} "
        f"| {size} | {seconds:.0f} |"
    )


def report(rows: Sequence[str]) -> str:
    """The table, in Markdown."""
    lines = [
        "# How-to pages on real models",
        "",
        "The commands of the pages, word for word. `quantize` judges on held-out samples of its",
        "data, `verify` on samples that the run has not seen. Decibels are the signal-to-noise",
        "ratio against the float model. Lines are of Python's documentation, photos are 300 of",
        "ImageNet's classes, pages are rendered, sounds are harmonics that glide like a voice's:",
        "no benchmark of the models, but data of their kind.",
        "",
        "| page | model | command | samples | outputs | file | seconds |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
        "Seconds are by the clock, on one thread of two cores that did much other work.",
        "",
        "Made by `python -m tools.bench.howto --output FILE`, one page after the other.",
    ]
    return "".join(f"{line}\n" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--shared", type=Path, help="the page on photos is left out without it")
    parser.add_argument("--only", choices=[case.page for case in CASES])
    parser.add_argument("--output", type=Path, required=True, help="Markdown file")
    options = parser.parse_args()
    kept: Path = options.output.with_suffix("")
    kept.mkdir(exist_ok=True)
    sources = Sources(options.cache.resolve(), options.shared)
    for case in CASES:
        if options.only in (None, case.page) and (options.shared or case.make is not _photos):
            with tempfile.TemporaryDirectory() as folder:
                rows = run_case(case, sources, Path(folder))
            (kept / f"{case.page}.txt").write_text("\n".join(rows), encoding="utf-8")
    files = [kept / f"{case.page}.txt" for case in CASES]
    text = report([file.read_text(encoding="utf-8") for file in files if file.exists()])
    print(text, end="")
    options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
