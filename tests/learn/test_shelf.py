"""Values between parts come back as they were, from memory and from files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from onnx_cgmq.learn import shelf as module
from onnx_cgmq.learn.shelf import Shelf


def _values(seed: int) -> dict[int, object]:
    generator = torch.Generator().manual_seed(seed)
    return {3: torch.randn(8, 16, generator=generator), 5: seed, 7: [seed, 2]}


def _same(one: dict, other: dict) -> bool:
    return torch.equal(one[3], other[3]) and (one[5], one[7]) == (other[5], other[7])


@pytest.mark.parametrize("limit", [0, 1200, 1 << 20])
def test_values_come_back_and_files_go(limit, monkeypatch) -> None:
    monkeypatch.setattr(module, "_MOST_BYTES", limit)
    with Shelf(torch.device("cpu")) as shelf:
        for seed in range(4):
            shelf.append(_values(seed))
        shelf.replace(1, _values(9))
        shelf.replace(0, shelf[2])
        assert [_same(shelf[i], _values(s)) for i, s in enumerate((2, 9, 2, 3))] == [True] * 4
        folder = None if shelf._folder is None else Path(shelf._folder.name)
        assert (folder is None) == (limit > 1200)
        in_memory = sum(isinstance(item, dict) for item in shelf._items)
        assert in_memory == (4 if limit > 1200 else limit // 512)
    assert folder is None or not folder.exists()


def test_a_full_disk_keeps_values_in_memory(monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(module, "_MOST_BYTES", 0)
    monkeypatch.setattr(torch, "save", full)
    with Shelf(torch.device("cpu")) as shelf:
        shelf.append(_values(1))
        assert _same(shelf[0], _values(1))


def test_a_view_is_stored_without_the_rest_of_its_tensor(monkeypatch) -> None:
    monkeypatch.setattr(module, "_MOST_BYTES", 0)
    with Shelf(torch.device("cpu")) as shelf:
        shelf.append({0: torch.zeros(1 << 20)[:4]})
        (path,) = shelf._items
        assert path.stat().st_size < 1 << 14


def test_values_in_memory_are_copies_of_the_same_layout() -> None:
    channels_last = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    values = {
        0: channels_last,
        1: torch.arange(7, dtype=torch.int64)[2:5],
        2: torch.zeros(0, 3),
        3: torch.tensor(True),
        4: torch.randn(3, 1).expand(3, 4),
    }
    kept = {slot: value.clone() for slot, value in values.items()}
    with Shelf(torch.device("cpu")) as shelf:
        shelf.append(values)
        for value in (channels_last, values[1], values[3]):
            value.zero_()
        found = shelf[0]
    assert all(torch.equal(found[slot], kept[slot]) for slot in values)
    assert all(found[slot].dtype == kept[slot].dtype for slot in values)
    assert all(found[slot].stride() == kept[slot].stride() for slot in values)
