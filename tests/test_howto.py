"""What the how-to pages show runs, on tiny models with the interfaces that the pages speak of."""

from __future__ import annotations

import json
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
import typer.testing
from onnx import parser
from PIL import Image

from onnx_cgmq import examples
from onnx_cgmq.cli.app import app
from onnx_cgmq.learn import schedule
from onnx_cgmq.settings.config import Effort
from tools.bench.howto import (
    CASES,
    PAGES,
    Block,
    Case,
    Sources,
    blocks,
    commands,
    play,
    report,
    run_case,
)

pytestmark = pytest.mark.slow

RATE = 16_000


def model(text: str, **weights: tuple[int, ...]) -> onnx.ModelProto:
    """A model of its text, with random weights of given shapes."""
    rng = np.random.default_rng(0)
    made = parser.parse_model(f'<ir_version: 9, opset_import: ["" : 20]> {text}')
    for name, shape in weights.items():
        values = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        tensor = onnx.numpy_helper.from_array(values.astype(np.float32), name)
        made.graph.initializer.append(tensor)
    return made


class Tokenizer:
    """Stands in for ``tokenizers.Tokenizer``: a word of k letters is the token k."""

    padding = truncation = None

    @classmethod
    def from_file(cls, path: str) -> Tokenizer:
        assert json.loads(Path(path).read_text()) == {}
        return cls()

    def token_to_id(self, token: str) -> int:
        return 0

    def no_padding(self) -> None:
        pass

    def encode_batch(self, lines: list[str]) -> list[SimpleNamespace]:
        words = [[min(len(word), 19) for word in line.split()] for line in lines]
        return [SimpleNamespace(ids=ids, type_ids=[0] * len(ids)) for ids in words]


def read_wave(path: Path, dtype: str, always_2d: bool = False) -> tuple[np.ndarray, int]:
    """Stands in for ``soundfile.read``, for mono files of 16 bits."""
    with wave.open(str(path)) as file:
        sound = np.frombuffer(file.readframes(file.getnframes()), np.int16) / np.float32(32768)
        return sound[:, None] if always_2d else sound, file.getframerate()


def text_encoder(folder: Path) -> None:
    made = model(
        "encoder (int64[n, length] input_ids, int64[n, length] attention_mask) "
        "=> (float[n, 8] embedding) { tokens = Gather(table, input_ids) "
        "mask = Cast<to = 1>(attention_mask) last = Constant<value_ints = [-1]>() "
        "wide = Unsqueeze(mask, last) counted = Mul(tokens, wide) "
        "hidden = MatMul(counted, first) bent = Relu(hidden) "
        "middle = Constant<value_ints = [1]>() mean = ReduceMean<keepdims = 0>(bent, middle) "
        "embedding = MatMul(mean, second) }",
        table=(20, 16),
        first=(16, 16),
        second=(16, 8),
    )
    onnx.save(made, folder / "encoder.onnx")
    words = ["a", "few", "words", "of", "different", "lengths", "stand", "in", "lines"]
    rng = np.random.default_rng(0)
    for name in ("lines", "unseen"):
        lines = [" ".join(rng.choice(words, rng.integers(3, 30))) for _ in range(60)]
        (folder / f"{name}.txt").write_text("\n".join(lines))
    (folder / "tokenizer.json").write_text("{}")


def detector(folder: Path) -> None:
    made = model(
        "detector (float[n, 3, height, width] x) => (float[n, 1, h, w] map) { "
        "a = Conv<strides = [4, 4], pads = [1, 1, 1, 1]>(x, first) r = Relu(a) "
        "b = Conv<pads = [1, 1, 1, 1]>(r, second) s = Relu(b) c = Conv(s, third) "
        "map = Sigmoid(c) }",
        first=(8, 3, 3, 3),
        second=(8, 8, 3, 3),
        third=(1, 8, 1, 1),
    )
    made.graph.node[4].name = "head/conv"
    onnx.save(made, folder / "detector.onnx")
    rng = np.random.default_rng(0)
    for name in ("pages", "unseen"):
        (folder / name).mkdir()
        for number in range(12):
            pixels = rng.integers(0, 256, (20, 32, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def speech(folder: Path) -> None:
    keywords = model(
        "keywords (float[n, 1600] sound) => (float[n, 4] scores) "
        "{ a = MatMul(sound, first) r = Relu(a) scores = MatMul(r, second) }",
        first=(1600, 8),
        second=(8, 4),
    )
    onnx.save(keywords, folder / "keywords.onnx")
    voice = model(
        "voice (float[batch, piece] input, float[2, batch, 128] state, int64 sr) "
        "=> (float[batch, 1] output, float[2, batch, 128] stateN) { "
        "a = MatMul(input, first) r = Tanh(a) b = MatMul(state, second) stateN = Add(b, r) "
        "c = MatMul(r, third) rate = Cast<to = 1>(sr) whole = Div(rate, rate) "
        "d = Mul(c, whole) output = Sigmoid(d) }",
        first=(576, 128),
        second=(128, 128),
        third=(128, 1),
    )
    onnx.save(voice, folder / "voice.onnx")
    rng = np.random.default_rng(0)
    (folder / "sounds").mkdir()
    for number in range(6):
        with wave.open(str(folder / "sounds" / f"{number}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(rng.integers(-9000, 9000, RATE, dtype=np.int16).tobytes())


def photos(folder: Path) -> None:
    made = model(
        "net (float[n, 3, 32, 32] x) => (float[n, 5] scores) { "
        "a = Conv<strides = [2, 2]>(x, first) r = Relu(a) p = GlobalAveragePool(r) "
        "f = Flatten(p) scores = MatMul(f, second) }",
        first=(8, 3, 3, 3),
        second=(8, 5),
    )
    onnx.save(made, folder / "efficientnet.onnx")
    rng = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for number in range(12):
        pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{number}.jpg")


def nothing(folder: Path) -> None:
    """The page makes its files itself."""


MADE: dict[str, Callable[[Path], None]] = {
    "text": text_encoder,
    "detector": detector,
    "speech": speech,
    "photos": photos,
    "training": nothing,
    "target": nothing,
    "production": nothing,
}


def run(words: list[str]) -> None:
    if words == ["python", "-m", "onnx_cgmq.examples"]:
        examples.digits()
        return
    program, *arguments = words
    assert program == "onnx-cgmq"
    result = typer.testing.CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("page", MADE)
def test_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(schedule, "STEPS", dict.fromkeys(Effort, (1, 4)))  # is about commands
    monkeypatch.setitem(sys.modules, "tokenizers", SimpleNamespace(Tokenizer=Tokenizer))
    monkeypatch.setitem(sys.modules, "soundfile", SimpleNamespace(read=read_wave))
    torch.manual_seed(0)
    np.random.seed(0)
    MADE[page](tmp_path)

    play(page, tmp_path, run)

    for module in ("streams", "losses"):
        sys.modules.pop(module, None)
    written = {name for block in blocks(page) for name in outputs(block)}
    assert written
    for name in written:
        assert (tmp_path / name).exists(), name


def outputs(block: Block) -> set[str]:
    """The files that the commands of a block write."""
    if block.language != "sh":
        return set()
    return {
        words[words.index(option) + 1]
        for words in commands(block)
        for option in ("-o", "--report", "--log")
        if option in words
    }


def test_a_page_is_run_on_a_real_model(tmp_path: Path) -> None:
    case = Case("photos", "a net", lambda _, folder: photos(folder), 1, "efficientnet.int.onnx")
    (row,) = run_case(case, Sources(tmp_path), tmp_path)
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[:4] == ["[photos](../howto/photos.md)", "a net", "`quantize`", "1"]
    assert cells[4].startswith("scores ")
    assert cells[4].endswith(" dB")
    assert report([row]).count(row) == 1


def test_every_page_is_known() -> None:
    others = {"curve", "encodings", "olive"}  # parts of commands and of other tools
    assert {path.stem for path in PAGES.glob("*.md")} == {*MADE, *others}
    assert {case.page for case in CASES} <= MADE.keys()
