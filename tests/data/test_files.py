from pathlib import Path

import numpy as np
import pytest

from onnx_cgmq.data.files import FileStore, Loaded
from onnx_cgmq.data.samples import Samples
from onnx_cgmq.errors import DataError

SIZE = 5  # samples in a file
FILE_BYTES = SIZE * 2 * 8


class Files:
    """Files that exist in memory only, and count how often they are read."""

    def __init__(self, contents):
        self.contents = contents
        self.reads = 0

    def load(self, path):
        self.reads += 1
        return self.contents[int(path.name)]

    def store(self, cache_bytes):
        paths = [Path(str(number)) for number in range(len(self.contents))]
        return FileStore(paths, self.load, cache_bytes)


def content(number, labels=True, width=2):
    values = np.arange(SIZE)[:, None] + SIZE * number + np.zeros(width)
    return Loaded({"x": values}, np.full(SIZE, number) if labels else None)


@pytest.fixture
def files():
    return Files([content(number) for number in range(8)])


def test_reads_rows_of_many_files_in_the_order_asked(files):
    store = files.store(FILE_BYTES)
    indices = np.array([39, 0, 7, 6, 21, 1])
    assert len(store) == 40
    assert store.read(indices)["x"][:, 0].tolist() == indices.tolist()
    assert store.labels.tolist() == np.repeat(np.arange(8), SIZE).tolist()


def test_pass_in_order_reads_every_file_once(files):
    samples = Samples.of(files.store(FILE_BYTES))
    files.reads = 0
    seen = [k for batch in samples.batches(3) for k in batch.inputs["x"][:, 0]]
    assert seen == list(range(40))
    assert files.reads == 8


def test_shuffled_pass_reads_every_file_about_once(files):
    train, _ = Samples.of(files.store(2 * FILE_BYTES)).split(0.2, seed=0)
    files.reads = 0
    order = train.shuffled(1)
    seen = [int(k) for batch in train.batches(1, order=order) for k in batch.inputs["x"][:, 0]]
    assert sorted(seen) == sorted(train.indices.tolist())
    assert seen != sorted(seen)
    assert files.reads <= 8


def test_cache_that_holds_all_reads_nothing_again(files):
    samples = Samples.of(files.store(8 * FILE_BYTES))
    files.reads = 0
    list(samples.batches(3, order=samples.shuffled(0)))
    assert files.reads == 0


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (Loaded({"z": content(1).inputs["x"]}, None), r"arrays \['z'\], but 0 has \['x'\]"),
        (content(1, labels=False), "one has labels and the other has none"),
    ],
)
def test_files_that_do_not_go_together(second, message):
    with pytest.raises(DataError, match=message):
        Files([content(0), second]).store(FILE_BYTES)
