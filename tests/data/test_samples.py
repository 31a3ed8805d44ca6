import numpy as np
import pytest

from onnx_cgmq.data.samples import ArrayStore, Samples


@pytest.fixture
def samples():
    numbers = np.arange(10)
    return Samples.of(ArrayStore({"x": numbers[:, None] * np.ones(2)}, numbers % 3))


def numbers(samples, **how):
    return [int(k) for batch in samples.batches(4, **how) for k in batch.inputs["x"][:, 0]]


def test_batches_in_order(samples):
    batches = list(samples.batches(4))
    assert [len(batch.indices) for batch in batches] == [4, 4, 2]
    assert samples.batch_count(4) == 3
    assert numbers(samples) == list(range(10))
    assert numbers(samples, drop_last=True) == list(range(8))
    assert batches[2].labels.tolist() == [2, 0]


def test_only_batch_is_kept_even_if_not_full(samples):
    assert [batch.size for batch in samples.batches(64, drop_last=True)] == [10]


def test_order(samples):
    order = samples.shuffled(3)
    assert sorted(order) == list(range(10))
    assert numbers(samples, order=order) == list(order)
    assert order.tolist() == samples.shuffled(3).tolist() != samples.shuffled(4).tolist()


def test_split_is_disjoint_and_repeatable(samples):
    train, validation = samples.split(0.3, seed=1)
    assert len(validation) == 3
    assert sorted(numbers(train) + numbers(validation)) == list(range(10))
    assert numbers(samples.split(0.3, seed=1)[1]) == numbers(validation)
    assert numbers(samples.split(0.3, seed=2)[1]) != numbers(validation)
    assert train.labels.tolist() == [k % 3 for k in numbers(train)]


@pytest.mark.parametrize(("share", "held_out"), [(0.001, 1), (0.999, 9)])
def test_split_leaves_something_on_both_sides(samples, share, held_out):
    train, validation = samples.split(share, seed=0)
    assert (len(train), len(validation)) == (10 - held_out, held_out)


def test_share_zero_holds_out_nothing(samples):
    train, validation = samples.split(0.0, seed=0)
    assert train is validation
    assert train.store is samples.store
    assert train.indices is samples.indices


def test_some_samples_are_drawn_from_everywhere_in_their_order(samples):
    drawn = numbers(samples.drawn(4))
    assert len(set(drawn)) == 4
    assert drawn == sorted(drawn) == numbers(samples.drawn(4))
    assert drawn != numbers(samples.drawn(4, seed=1))
    assert {number for seed in range(20) for number in numbers(samples.drawn(4, seed))} == {
        *range(10)
    }
    assert numbers(samples.drawn(10)) == numbers(samples)


def test_subset_counts_from_its_own_start(samples):
    part = samples.subset(np.array([7, 5, 3]))
    assert numbers(part) == [7, 5, 3]
    assert numbers(part.subset(np.array([2, 0]))) == [3, 7]
    assert part.batch(np.array([1])).inputs["x"][0, 0] == 5
