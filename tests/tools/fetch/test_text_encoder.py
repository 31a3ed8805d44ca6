"""What is read of the packaged text encoder, and the texts for it."""

from __future__ import annotations

import itertools
import json

import numpy as np
import torch

from tools.fetch.text_encoder import TextEncoder, Tokenizer, _stored, _tensors, sentences


def test_tensors_are_read_from_safetensors() -> None:
    arrays = {"a": np.float32([[1, 2], [3, 4]]), "b": np.float32([5])}
    header, start = {"__metadata__": {"format": "pt"}}, 0
    for name, array in arrays.items():
        end = start + array.nbytes
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [start, end]}
        start = end
    header["numbers"] = {"dtype": "I64", "shape": [0], "data_offsets": [start, start]}
    text = json.dumps(header).encode()
    content = len(text).to_bytes(8, "little") + text
    found = _tensors(content + b"".join(array.tobytes() for array in arrays.values()))
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        name: array.tolist() for name, array in arrays.items()
    }


def test_every_parameter_has_a_stored_name() -> None:
    with torch.device("meta"):
        names = [_stored(name) for name in TextEncoder().state_dict()]
    assert len(set(names)) == len(names) == 5 + 6 * 16
    assert "encoder.layer.5.attention.output.LayerNorm.bias" in names


def test_words_are_split_into_the_longest_pieces(tmp_path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##aff", "##able", "cafe", ".", "_", "un##"]
    vocabulary = tmp_path / "words.json"
    vocabulary.write_text(json.dumps({word: number for number, word in enumerate(words)}))
    found = Tokenizer(vocabulary)(["Unaffable Café.", "xyz un_un"], 7)
    assert found["input_ids"].tolist() == [[2, 4, 5, 6, 7, 8, 3], [2, 1, 4, 9, 4, 3, 0]]
    assert found["attention_mask"].tolist() == [[1] * 7, [1] * 6 + [0]]


def test_sentences_are_different_and_long_enough() -> None:
    found = list(itertools.islice(sentences(), 50))
    assert len(set(found)) == 50
    assert min(len(sentence.split()) for sentence in found) >= 6
