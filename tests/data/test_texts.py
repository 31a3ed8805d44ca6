import json
import sys
from types import SimpleNamespace

import pytest

from onnx_cgmq import DataFiles
from onnx_cgmq.data import open_data
from onnx_cgmq.errors import ConfigError, DataError
from tests.support.inputs import INT64, input_model

NAMES = ("input_ids", "attention_mask", "token_type_ids")


class Tokenizer:
    """Stands in for ``tokenizers.Tokenizer``: a word of k letters is the token k."""

    def __init__(self, settings):
        self.padding = settings.get("padding")
        self.truncation = settings.get("truncation")
        self._tokens = settings.get("tokens", {})

    @classmethod
    def from_file(cls, path):
        with open(path, encoding="utf-8") as file:
            return cls(json.load(file))

    def token_to_id(self, token):
        return self._tokens.get(token)

    def enable_truncation(self, max_length):
        self.truncation = {"max_length": max_length}

    def no_padding(self):
        self.padding = None

    def encode_batch(self, lines):
        assert self.padding is None
        most = self.truncation["max_length"] if self.truncation else None
        words = [[len(word) for word in line.split()][:most] for line in lines]
        return [SimpleNamespace(ids=ids, type_ids=[0] * len(ids)) for ids in words]


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Tokenizes text; gives the samples."""
    monkeypatch.setitem(sys.modules, "tokenizers", SimpleNamespace(Tokenizer=Tokenizer))

    def run(text, model, settings=None, **options):
        (tmp_path / "lines.txt").write_text(text, encoding="utf-8")
        (tmp_path / "tokenizer.json").write_text(json.dumps(settings or {}))
        given = {"tokenizer": tmp_path / "tokenizer.json", **options}
        return open_data(DataFiles(tmp_path / "lines.txt", **given), model)

    return run


def model_of(*names, length="length"):
    return input_model(**{name: (INT64, ["n", length]) for name in names})


def arrays(samples):
    return {
        name: [row for batch in samples.batches(8) for row in batch.inputs[name].tolist()]
        for name in next(samples.batches(1)).inputs
    }


def test_lines_are_padded_and_cut_to_the_size_of_the_model(read):
    settings = {"tokens": {"[PAD]": 9}}
    samples = read("a bb\n\n  \nccc dddd a a a\n", model_of(*NAMES, length=4), settings)
    assert arrays(samples) == {
        "input_ids": [[1, 2, 9, 9], [3, 4, 1, 1]],
        "attention_mask": [[1, 1, 0, 0], [1, 1, 1, 1]],
        "token_type_ids": [[0, 0, 0, 0], [0, 0, 0, 0]],
    }
    assert samples.notes == ("2 lines of text are samples of 4 tokens",)


def test_padding_is_that_of_the_tokenizer(read):
    settings = {"padding": {"pad_id": 5, "pad_type_id": 1, "direction": "left"}}
    samples = read("a bb", model_of(*NAMES, length=3), settings)
    assert arrays(samples) == {
        "input_ids": [[5, 1, 2]],
        "attention_mask": [[0, 1, 1]],
        "token_type_ids": [[1, 0, 0]],
    }


def test_an_open_length_is_a_multiple_of_16_with_a_mask(read):
    text = "a\n" + "a " * 17 + "\n" + "b " * 16 + "\n"
    samples = read(text, model_of(*NAMES[:2]))
    assert sorted(batch.inputs["input_ids"].shape for batch in samples.batches(4)) == [
        (1, 32),
        (2, 16),
    ]
    samples = read(text, model_of(*NAMES[:2]), length=20)
    assert {batch.inputs["input_ids"].shape[1] for batch in samples.batches(4)} == {16, 20}


def test_an_open_length_without_a_mask_is_that_of_the_line(read):
    samples = read("a\nbb cc", model_of("tokens"))
    assert sorted(arrays(samples)["tokens"]) == [[1], [2, 2]]


def test_the_tokenizer_may_cut_earlier_than_the_model(read):
    samples = read("a a a a", model_of(*NAMES, length=4), {"truncation": {"max_length": 2}})
    assert arrays(samples)["attention_mask"] == [[1, 1, 0, 0]]


def test_refusals(read, tmp_path, monkeypatch):
    with pytest.raises(DataError, match="no token for padding"):
        read("a", model_of("input_ids", length=4))
    with pytest.raises(DataError, match="lines of text are for models with the inputs"):
        read("a", model_of("input_ids", "position_ids"))
    with pytest.raises(DataError, match="--length 9, but the model takes 4"):
        read("a", model_of(*NAMES, length=4), length=9)
    with pytest.raises(DataError, match="the text is empty"):
        read(" \n", model_of(*NAMES))
    with pytest.raises(DataError, match="give --tokenizer"):
        read("a", model_of(*NAMES), tokenizer=None)
    with pytest.raises(DataError, match=r"no such file|not a readable tokenizer"):
        read("a", model_of(*NAMES), tokenizer=tmp_path / "none.json")
    with pytest.raises(DataError, match="labels have no effect on lines of text"):
        read("a", model_of(*NAMES), labels="folders")
    with pytest.raises(ConfigError, match="length 0"):
        read("a", model_of(*NAMES), length=0)
    (tmp_path / "lines.txt").write_bytes(b"\xff\xfe\x00")
    files = DataFiles(tmp_path / "lines.txt", tokenizer=tmp_path / "tokenizer.json")
    with pytest.raises(DataError, match="not a readable text in UTF-8"):
        open_data(files, model_of(*NAMES))
    (tmp_path / "lines.txt").write_text("a")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(DataError, match=r"pip install 'onnx-cgmq\[text\]'"):
        open_data(files, model_of(*NAMES))


def test_a_real_tokenizer(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    words = {"[PAD]": 0, "[UNK]": 1, "hello": 2, "world": 3}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.enable_padding(pad_id=0)
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "lines.txt").write_text("hello world\nworld\nhello hello hello there\n")
    files = DataFiles(tmp_path / "lines.txt", tokenizer=tmp_path / "tokenizer.json")
    found = arrays(open_data(files, model_of(*NAMES[:2], length=3)))
    assert found["input_ids"] == [[2, 3, 0], [3, 0, 0], [2, 2, 2]]
    assert found["attention_mask"] == [[1, 1, 0], [1, 0, 0], [1, 1, 1]]
