import gc
import tracemalloc
import weakref

import numpy as np
import pytest
import torch

from onnx_cgmq.data import open_data, spool, streams
from onnx_cgmq.data.streams import can_be_read_anew
from onnx_cgmq.errors import DataError
from tests.support.inputs import input_model


@pytest.fixture
def model():
    return input_model(x=["n", "size"])


class Loader:
    """Gives each time its samples with another number added, like a random augmentation."""

    def __init__(self, count=6, labels=True):
        self.count, self.labels, self.passes = count, labels, 0

    def __len__(self):
        return -(-self.count // 2)

    def __iter__(self):
        self.passes += 1
        for start in range(0, self.count, 2):
            rows = np.arange(start, min(start + 2, self.count))
            x = np.repeat(rows[:, None], 3, axis=1) + np.float32(100 * (self.passes - 1))
            yield (x, rows % 3) if self.labels else x


def values(samples, order=None):
    return [int(k) for b in samples.batches(4, order=order) for k in b.inputs["x"][:, 0]]


def versions(samples):
    return {batch.version for batch in samples.batches(4)}


# -- in memory once ---------------------------------------------------------------------------


def test_batches_are_in_memory_once(model, monkeypatch):
    monkeypatch.setattr(streams, "_CHUNK_BYTES", 1 << 20)
    batches, size = 64, 1 << 18  # bytes of a batch

    def generate():
        for number in range(batches):
            yield np.full((16, size // 64), number, np.float32)

    tracemalloc.start()
    try:
        samples = open_data(generate(), model)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(samples) == 16 * batches
    assert peak < 1.3 * batches * size
    assert values(samples) == [number for number in range(batches) for _ in range(16)]


def test_parts_give_what_one_array_gives(model, monkeypatch):
    whole = open_data(Loader(7), model)
    monkeypatch.setattr(streams, "_CHUNK_BYTES", 1)
    parts = open_data(Loader(7), model)
    assert values(parts) == values(whole) == list(range(7))
    assert parts.labels.tolist() == whole.labels.tolist()
    assert parts.shuffled(3).tolist() == whole.shuffled(3).tolist()
    for one, other in zip(parts.split(0.3, seed=1), whole.split(0.3, seed=1), strict=True):
        assert values(one) == values(other)


def test_a_batch_is_named_in_messages(model):
    with pytest.raises(DataError, match=r"data \(list\), batch 2: input 'x': NaN in sample 1"):
        open_data([np.zeros((2, 3)), np.array([[1.0], [np.nan]])], model)


# -- read anew --------------------------------------------------------------------------------


def test_a_loader_is_read_anew_for_each_order_after_the_first(model):
    loader = Loader()
    samples = open_data(loader, model)
    assert (values(samples), versions(samples)) == ([0, 1, 2, 3, 4, 5], {0})
    first = samples.shuffled(1)
    assert sorted(values(samples, first)) == [0, 1, 2, 3, 4, 5]
    second = samples.shuffled(2)
    assert sorted(values(samples, second)) == [100, 101, 102, 103, 104, 105]
    assert versions(samples) == {1}
    assert samples.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert loader.passes == 2


def test_a_split_is_never_read_anew(model):
    loader = Loader()
    for share in (0.5, 0):
        train, held_out = open_data(loader, model).split(share, seed=0)
        before = values(train), values(held_out)
        for seed in range(3):
            train.shuffled(seed)
        assert (values(train), values(held_out)) == before
        assert versions(train) == {0}
    assert loader.passes == 2


def test_what_was_read_before_is_given_up_first(model):
    samples = open_data(Loader(), model)
    alive = []

    def renewed(self):
        gc.collect()
        alive.append(before() is not None)
        yield from ((np.ones((2, 3), np.float32), np.zeros(2, int)) for _ in range(3))

    before = weakref.ref(samples.store.fixed())
    samples.shuffled(0)
    Loader.__iter__, original = renewed, Loader.__iter__
    try:
        samples.shuffled(1)
    finally:
        Loader.__iter__ = original
    assert alive == [False]


def test_a_pass_that_does_not_fit_the_first_is_refused(model):
    for change, message in (
        ({"count": 4}, r"data \(Loader\): 4 samples, but 6 in the first pass"),
        ({"labels": False}, "samples differ in shape, or have labels, or have none"),
    ):
        loader = Loader()
        samples = open_data(loader, model)
        samples.shuffled(0)
        vars(loader).update(change)
        with pytest.raises(DataError, match=message):
            samples.shuffled(1)


def test_only_loaders_are_read_anew():
    data = torch.utils.data.TensorDataset(torch.zeros(2, 3))
    assert can_be_read_anew(torch.utils.data.DataLoader(data))
    assert can_be_read_anew(Loader())
    for fixed in ([], (), {}, np.zeros(3), torch.zeros(3), iter([]), "abc"):
        assert not can_be_read_anew(fixed)


# -- many batches -----------------------------------------------------------------------------


@pytest.fixture
def little_memory(monkeypatch):
    """Batches go to a file as soon as there are more than two."""
    monkeypatch.setattr(streams, "_CHUNK_BYTES", 1)
    monkeypatch.setattr(spool, "CACHE_BYTES", 48)


def test_batches_in_a_file_give_what_those_in_memory_give(model, monkeypatch, little_memory):
    in_file = open_data(Loader(7), model)
    monkeypatch.undo()
    whole = open_data(Loader(7), model)
    assert values(in_file) == values(whole) == list(range(7))
    assert in_file.labels.tolist() == whole.labels.tolist()
    for one, other in zip(in_file.split(0.3, seed=1), whole.split(0.3, seed=1), strict=True):
        assert values(one) == values(other)
    assert in_file.shuffled(3).tolist() == whole.shuffled(3).tolist()
    mixed = np.array([6, 0, 3, 3])
    assert in_file.batch(mixed).inputs["x"].tolist() == whole.batch(mixed).inputs["x"].tolist()
    in_file.shuffled(3)
    assert values(in_file) == [100, 101, 102, 103, 104, 105, 106]


def test_many_batches_take_no_memory(model, monkeypatch):
    monkeypatch.setattr(streams, "_CHUNK_BYTES", 1 << 18)
    monkeypatch.setattr(spool, "CACHE_BYTES", 1 << 20)
    peaks = []
    for batches in (16, 160):
        generated = (np.full((16, 1 << 12), n, np.float32) for n in range(batches))
        tracemalloc.start()
        try:
            samples = open_data(generated, model)
            read = [int(b.inputs["x"][0, 0]) for b in samples.batches(16)]
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert read == list(range(batches))
    assert peaks[1] < 1.3 * peaks[0]


def test_samples_that_differ_in_size_go_to_a_file(model, little_memory):
    rows = [np.full((2, 3 + number % 2), number, np.float32) for number in range(6)]
    samples = open_data(iter(rows), model)
    found = {(b.inputs["x"].shape, int(b.inputs["x"][0, 0])) for b in samples.batches(2)}
    assert found == {((2, 3 + number % 2), number) for number in range(6)}


def test_without_room_in_a_file_batches_stay_in_memory(model, monkeypatch, little_memory):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spool.tempfile, "TemporaryFile", full)
    assert values(open_data(Loader(7), model)) == list(range(7))


def test_the_file_is_closed_with_the_samples(model, monkeypatch, little_memory):
    made, real = [], spool.tempfile.TemporaryFile
    monkeypatch.setattr(
        spool.tempfile, "TemporaryFile", lambda **options: made.append(real(**options)) or made[-1]
    )
    samples = open_data(Loader(7), model)
    (file,) = made
    assert not file.closed
    del samples
    gc.collect()
    assert file.closed


def test_large_samples_are_read_a_few_at_once(model):
    samples = open_data(np.zeros((9, 1 << 20), np.float32), model)
    assert samples.at_once(128) == 64
    assert samples.at_once(8) == 8
