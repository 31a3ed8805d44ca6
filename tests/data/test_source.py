import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from onnx_cgmq.data import Samples, open_data
from onnx_cgmq.errors import DataError

TYPES = {"float32": onnx.TensorProto.FLOAT, "int64": onnx.TensorProto.INT64}


def make_model(**inputs):
    """A model whose inputs are ``name=(dtype, dims)``; the first one leads to 3 classes."""
    values = [
        onnx.helper.make_tensor_value_info(name, TYPES.get(dtype, dtype), dims)
        for name, (dtype, dims) in inputs.items()
    ]
    output = onnx.helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["n", 3])
    node = onnx.helper.make_node("Identity", [values[0].name], ["scores"])
    graph = onnx.helper.make_graph([node], "g", values, [output])
    return ir.from_proto(onnx.helper.make_model(graph))


@pytest.fixture
def one():
    return make_model(x=("float32", ["n", 3]))


@pytest.fixture
def two():
    return make_model(x=("float32", ["n", 3]), ids=("int64", ["n", "length"]))


def rows(count, start=0):
    """Samples ``[k, k, k]``, so that a sample tells its number."""
    return np.repeat(np.arange(start, start + count, dtype=np.float32)[:, None], 3, axis=1)


def numbers(samples, **how):
    return [int(k) for batch in samples.batches(4, **how) for k in batch.inputs["x"][:, 0]]


def save_tensor(path, array):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(onnx.numpy_helper.from_array(array).SerializeToString())


class Reader:
    """An onnxruntime CalibrationDataReader, by its interface."""

    def __init__(self, batches):
        self.batches = iter(batches)

    def get_next(self):
        return next(self.batches, None)


# -- every kind of data -----------------------------------------------------------------------


def test_npz_with_labels(one, tmp_path):
    np.savez(tmp_path / "d.npz", x=rows(5), label=np.array([0, 1, 2, 0, 1], np.uint8))
    samples = open_data(tmp_path / "d.npz", one)
    assert len(samples) == 5
    assert samples.has_labels
    assert samples.labels.tolist() == [0, 1, 2, 0, 1]
    assert samples.labels.dtype == np.int64
    assert open_data(str(tmp_path / "d.npz"), one).labels.tolist() == [0, 1, 2, 0, 1]


def test_folder_of_npz_in_natural_order(one, tmp_path):
    for number in (10, 9, 1):
        np.savez(tmp_path / f"part{number}.npz", x=rows(2, start=number), label=[number % 3] * 2)
    samples = open_data(tmp_path, one)
    assert numbers(samples) == [1, 2, 9, 10, 10, 11]
    assert samples.labels.tolist() == [1, 1, 0, 0, 1, 1]


@pytest.mark.parametrize("inside", [False, True])
def test_onnx_test_data_sets(two, tmp_path, inside):
    for number in range(1 if inside else 11):
        folder = tmp_path / f"test_data_set_{number}"
        save_tensor(folder / "input_0.pb", rows(1, start=number))
        save_tensor(folder / "input_1.pb", np.full((1, 4), number, np.int64))
        save_tensor(folder / "output_0.pb", rows(1))
    samples = open_data(tmp_path / "test_data_set_0" if inside else tmp_path, two)
    assert numbers(samples) == list(range(1 if inside else 11))
    assert samples.batch(np.array([0])).inputs["ids"].tolist() == [[0] * 4]
    assert not samples.has_labels


def test_calibration_reader_is_joined(one):
    samples = open_data(Reader([{"x": rows(3)}, {"x": rows(2, start=3)}]), one)
    assert numbers(samples) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("form", ["x", "pair", "dict"])
def test_torch_loader(one, form):
    x, y = torch.from_numpy(rows(5)), torch.tensor([0, 1, 2, 0, 1])
    if form == "dict":
        data = [{"x": a, "label": b} for a, b in zip(x, y, strict=True)]
    else:
        data = torch.utils.data.TensorDataset(*((x,) if form == "x" else (x, y)))
    samples = open_data(torch.utils.data.DataLoader(data, batch_size=2), one)
    assert numbers(samples) == [0, 1, 2, 3, 4]
    assert samples.has_labels == (form != "x")


def test_arrays_are_not_copied(one):
    x = rows(6)
    for data in ({"x": x}, ({"x": x}, np.zeros(6, int)), (x, np.zeros(6, int)), x):
        batch = next(open_data(data, one).batches(4))
        assert np.shares_memory(batch.inputs["x"], x)


def test_factory_by_name_and_as_callable(one, tmp_path, monkeypatch):
    (tmp_path / "my_samples.py").write_text(
        "import numpy as np\ndef make():\n    return {'x': np.ones((2, 3), 'float32')}\nN = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert len(open_data("my_samples:make", one)) == 2
    assert len(open_data(lambda: rows(4), one)) == 4
    with pytest.raises(DataError, match="no 'missing'"):
        open_data("my_samples:missing", one)
    with pytest.raises(DataError, match="can't be called"):
        open_data("my_samples:N", one)
    with pytest.raises(DataError, match="can't import 'no_such'"):
        open_data("no_such:make", one)
    sys.modules.pop("my_samples")


def test_samples_pass_through(one):
    samples = open_data(rows(2), one)
    assert open_data(samples, one) is samples


# -- types ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_floats_convert(one, dtype):
    batch = next(open_data(rows(2).astype(dtype), one).batches(2))
    assert batch.inputs["x"].dtype == np.float32


def test_integers_convert_if_they_fit():
    model = make_model(x=(onnx.TensorProto.INT32, ["n"]))
    batch = next(open_data({"x": np.array([1, -2])}, model).batches(2))
    assert batch.inputs["x"].dtype == np.int32
    with pytest.raises(DataError, match="values from 1 to 4294967296 do not fit the model's int32"):
        open_data({"x": np.array([1, 2**32])}, model)


def test_bfloat16_input():
    model = make_model(x=(onnx.TensorProto.BFLOAT16, ["n", 3]))
    batch = next(open_data({"x": rows(2)}, model).batches(2))
    assert batch.inputs["x"].dtype == ml_dtypes.bfloat16


def test_overflow_in_conversion_is_reported():
    model = make_model(x=(onnx.TensorProto.FLOAT16, ["n", 3]))
    with pytest.raises(DataError, match="converted to float16,: infinity in sample 1"):
        open_data({"x": np.array([[1, 1, 1], [1, 1e9, 1]], np.float32)}, model)


# -- errors -----------------------------------------------------------------------------------


def with_value(value):
    x = rows(4)
    x[2, 1] = value
    return x


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"y": rows(2)}, r"missing \['x'\]; not an input of the model \['y'\].*wanted \['x'\]"),
        ({"x": rows(2), "labels": [0, 1]}, r"not an input of the model \['labels'\]"),
        ({"x": rows(2)[:, :2]}, r"shape \[2, 2\] does not fit \[samples, 3\]: axis 1 is 2, wanted"),
        ({"x": rows(2)[0]}, "1 axes, wanted 2"),
        ({"x": np.float32(1)}, "a single number"),
        ({"x": (9 * rows(2)).astype("uint8")}, "type uint8, wanted float32; these look like raw"),
        ({"x": rows(2).astype(np.int64)}, r"type int64, wanted float32; convert it with astype"),
        ({"x": with_value(np.nan)}, r"input 'x': NaN in sample 2 \(at index \[1\]\)"),
        ({"x": with_value(-np.inf)}, "infinity in sample 2"),
        ({"x": rows(0)}, "no samples"),
        ({"x": np.array([["a"] * 3])}, "not of numbers"),
        ({"x": rows(2), "label": np.array([0])}, "1 labels for 2 samples"),
        ({"x": rows(2), "label": np.eye(2)}, "one-hot labels become indexes"),
        ({"x": rows(2), "label": np.array([0.0, 1.0])}, "must be integer class indexes"),
        ({"x": rows(2), "label": np.array([0, 3])}, r"label 3 of sample 1 .* \(0 to 2\)"),
        (({"x": rows(2), "label": np.array([0, 1])}, np.array([0, 1])), "labels are given twice"),
        ((rows(2), rows(2), rows(2)), "a tuple of 3 is not a batch"),
        ([], "the data is empty"),
        ([{"x": rows(1)}, {"x": rows(1), "label": np.array([0])}], "some batches have labels"),
        ([{"x": rows(1)}, {"y": rows(1)}], "different names"),
        ([rows(1), rows(1)[:, :2]], r"shape \[1, 2\] does not fit \[samples, 3\]"),
        (3, "this kind of data"),
        (lambda: lambda: rows(1), "this kind of data"),
        ("nowhere.npz", "no such file"),
    ],
)
def test_bad_data(one, data, message):
    with pytest.raises(DataError, match=message):
        open_data(data, one)


def test_several_inputs(two):
    with pytest.raises(DataError, match="different numbers of samples"):
        open_data({"x": rows(2), "ids": np.zeros((3, 4), np.int64)}, two)
    with pytest.raises(DataError, match="an array without a name"):
        open_data(rows(2), two)


def test_labels_in_a_column_will_do(one):
    assert open_data((rows(2), np.array([[2], [1]])), one).labels.tolist() == [2, 1]


def test_input_named_label_is_an_input():
    model = make_model(label=("float32", ["n", 3]))
    assert not open_data({"label": rows(2)}, model).has_labels


def test_npy_is_the_only_input(one, two, tmp_path):
    np.save(tmp_path / "a.npy", rows(2))
    assert numbers(open_data(tmp_path / "a.npy", one)) == [0, 1]
    np.save(tmp_path / "b.npy", rows(2, start=5))
    assert numbers(open_data(tmp_path, one)) == [0, 1, 5, 6]
    with pytest.raises(DataError, match=r"a single array without a name, .*\['x', 'ids'\]"):
        open_data(tmp_path / "a.npy", two)
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    with pytest.raises(DataError, match=r"not a readable .npy file .*Python objects"):
        open_data(tmp_path / "objects.npy", one)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-1])
    with pytest.raises(DataError, match=r"not a readable .npy file"):
        open_data(tmp_path / "cut.npy", one)


def test_bad_files(one, tmp_path):
    def refused(name, content, message):
        path: Path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            open_data(path, one)

    np.savez(tmp_path / "good.npz", x=rows(9))
    refused("truncated.npz", (tmp_path / "good.npz").read_bytes()[:-30], "not a readable .npz")
    refused("text.npz", b"hello", "no zip archive")
    refused("empty.npz", b"", "not a readable .npz")
    np.savez(tmp_path / "objects.npz", x=np.array([{}], dtype=object))
    with pytest.raises(DataError, match=r"not a readable .npz file of plain arrays"):
        open_data(tmp_path / "objects.npz", one)


def test_bad_folders(one, tmp_path):
    with pytest.raises(DataError, match=r"no data: no .npz files"):
        open_data(tmp_path, one)
    folder = tmp_path / "test_data_set_0"
    save_tensor(folder / "input_1.pb", rows(1))
    with pytest.raises(DataError, match=r"found \['input_1.pb'\], wanted \['input_0.pb'\]"):
        open_data(tmp_path, one)
    (folder / "input_1.pb").rename(folder / "input_0.pb")
    (folder / "input_0.pb").write_bytes(b"\xff\xff\xff")
    with pytest.raises(DataError, match=r"input_0.pb: not a readable serialized tensor"):
        open_data(tmp_path, one)
    np.savez(tmp_path / "d.npz", x=rows(1))
    with pytest.raises(DataError, match="has both"):
        open_data(tmp_path, one)


def test_bad_file_in_a_folder_is_found_before_training(one, tmp_path):
    np.savez(tmp_path / "a.npz", x=rows(2))
    np.savez(tmp_path / "b.npz", x=with_value(np.nan))
    with pytest.raises(DataError, match=r"b.npz: input 'x': NaN in sample 2"):
        open_data(tmp_path, one)


# -- models -----------------------------------------------------------------------------------


def test_scalars_belong_to_one_sample_each():
    model = make_model(x=("float32", ["n", 3]), t=("float32", []))
    for t in (np.arange(4, dtype=np.float32), np.float32(0)):
        batches = list(open_data({"x": rows(4), "t": t}, model).batches(128))
        assert [batch.inputs["x"].shape for batch in batches] == [(1, 3)] * 4
        assert [batch.inputs["t"].shape for batch in batches] == [()] * 4
    assert batches[2].inputs["x"][0, 0] == 2


def test_fixed_batch_is_filled_up():
    samples = open_data(rows(5), make_model(x=("float32", [4, 3])))
    batches = list(samples.batches(128))
    assert [batch.size for batch in batches] == [4, 1]
    assert samples.batch_count(128) == 2
    assert batches[1].inputs["x"][:, 0].tolist() == [4, 4, 4, 4]
    assert [batch.size for batch in samples.batches(128, drop_last=True)] == [4]


def test_samples_type_is_public(one):
    assert isinstance(open_data(rows(1), one), Samples)


def lengths():
    """Samples of 5 to 7 numbers, of two lengths more often than of the third."""
    return [np.full((count, 5 + k % 3), k) for k, count in enumerate([2, 3, 1, 2, 1])]


def test_samples_of_different_lengths_are_batches_of_one_length_each(tmp_path):
    model = make_model(x=("int64", ["n", "length"]))
    for k, ids in enumerate(lengths()):
        np.savez(tmp_path / f"{k}.npz", x=ids)
    for data in (tmp_path, lengths(), Reader({"x": ids} for ids in lengths())):
        samples = open_data(data, model)
        assert len(samples) == 9
        batches = list(samples.batches(3))
        shapes = sorted(batch.inputs["x"].shape for batch in batches)
        assert shapes == [(1, 5), (1, 6), (1, 7), (3, 5), (3, 6)]
        assert samples.batch_count(3) == len(batches)
        order = samples.shuffled(0)
        found = [batch.inputs["x"] for batch in samples.batches(2, order=order)]
        assert sorted(k for x in found for k in x[:, 0]) == [0, 0, 1, 1, 1, 2, 3, 3, 4]
        for skip in range(len(found)):
            rest = [batch.inputs["x"] for batch in samples.batches(2, order=order, skip=skip)]
            assert [x.tolist() for x in rest] == [x.tolist() for x in found[skip:]]


# -- targets ----------------------------------------------------------------------------------


def test_arrays_named_like_outputs_are_targets(one, tmp_path):
    np.savez(tmp_path / "a.npz", x=rows(3), scores=rows(3) * 2.0)
    np.savez(tmp_path / "b.npz", x=rows(2, start=3), scores=rows(2, start=3) * 2.0)
    samples = open_data(tmp_path, one)
    for part in (samples, samples.subset(np.array([4, 0, 2]))):
        for batch in part.batches(2):
            assert list(batch.inputs) == ["x"]
            assert batch.targets["scores"].dtype == np.float32
            np.testing.assert_array_equal(batch.targets["scores"], 2 * batch.inputs["x"])
    assert next(open_data({"x": rows(2)}, one).batches(2)).targets == {}


def test_a_last_batch_that_is_filled_up_has_targets_for_all():
    fixed = make_model(x=("float32", [4, 3]))
    batch = next(open_data({"x": rows(3), "scores": [0, 1, 2]}, fixed).batches(4))
    assert batch.size == 3
    assert batch.targets["scores"].tolist() == [0, 1, 2, 2]


@pytest.mark.parametrize(
    ("scores", "message"),
    [(rows(3), "different numbers"), ([1.0, np.nan], "values 'scores': NaN"), (1.0, "single")],
)
def test_unfit_targets_are_refused(one, scores, message):
    with pytest.raises(DataError, match=message):
        open_data({"x": rows(2), "scores": scores}, one)
