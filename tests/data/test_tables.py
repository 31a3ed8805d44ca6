import numpy as np
import pytest

from onnx_cgmq.data import open_data
from onnx_cgmq.errors import DataError
from tests.support.inputs import INT64, input_model


@pytest.fixture
def one():
    return input_model(x=["n", 3])


@pytest.fixture
def several():
    return input_model(age=["n", 1], kind=(INT64, ["n"]))


@pytest.fixture
def read(tmp_path):
    """Reads CSV text; gives the arrays and the labels."""

    def run(text, model):
        path = tmp_path / "t.csv"
        path.write_bytes(text.encode())
        samples = open_data(path, model)
        (batch,) = samples.batches(len(samples))
        return batch.inputs, None if samples.labels is None else samples.labels.tolist()

    return run


def test_all_columns_in_order_are_the_features_of_one_input(read, one):
    inputs, labels = read("z,label,y,x\n1,2,2.5,3\n4,0,5,-6e1\n", one)
    assert inputs["x"].tolist() == [[1, 2.5, 3], [4, 5, -60]]
    assert inputs["x"].dtype == np.float32
    assert labels == [2, 0]
    assert read("a;b;c\r\n1;2;3\r\n\r\n", one)[1] is None
    assert read("\ufeffa\tb\tc\n1\t2\t3\n", one)[0]["x"].tolist() == [[1, 2, 3]]


def test_columns_are_named_like_several_inputs(read, several):
    inputs, labels = read("label,kind,age\n1,7,2\n2,8,3\n", several)
    assert inputs["age"].tolist() == [[2], [3]]
    assert inputs["kind"].tolist() == [7, 8]
    assert inputs["kind"].dtype == np.int64
    assert labels == [1, 2]
    with pytest.raises(DataError, match=r"t\.csv: missing \['kind'\]"):
        read("age\n1\n", several)
    with pytest.raises(DataError, match=r"not an input of the model \['id'\]"):
        read("age,kind,id\n1,2,3\n", several)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3\n4,5,6\n", "must have the names of the columns"),
        (",a,b\n0,1,2\n", "a column without a name"),
        ("a,a,b\n0,1,2\n", "the same name twice"),
        ("a,b\n1,2\n", r"2 columns, a, b, but input 'x'.* takes 3 features"),
        ("a,b,c\n1,2\n", "line 2: 2 values for 3 columns"),
        ("a,b,c\n1,2,3\n1,,3\n", "line 3: '' in column 'b' is no number"),
        ("a,b,c\n1,2,nan\n", "NaN in sample 0"),
        ("a,b,c\n", "no rows"),
        ("", "no rows"),
        ("a,b,c,scores\n1,2,3,4\n", "'scores' has the name of an output"),
        ("a,b,c,label\n1,2,3,0.5\n", "column 'label': 0.5 is no whole number"),
        ("a,b,c,label\n1,2,3,9\n", "label 9 of sample 0 is not a class index"),
    ],
)
def test_bad_tables(read, one, text, message):
    with pytest.raises(DataError, match=message):
        read(text, one)


def test_whole_numbers_are_exact_or_refused(read, several):
    with pytest.raises(DataError, match=r"column 'kind': 1\.5 is no whole number"):
        read("age,kind\n1,1.5\n", several)
    with pytest.raises(DataError, match="too large"):
        read("age,kind\n1,9007199254740993000\n", several)


def test_missing_tables(one, tmp_path):
    for name in ("a.csv", "a.parquet"):
        with pytest.raises(DataError, match=r"no such file|pip install"):
            open_data(tmp_path / name, one)


def test_parquet(one, several, tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "t.parquet"

    def read(model, **columns):
        parquet.write_table(pa.table(columns), path)
        samples = open_data(path, model)
        (batch,) = samples.batches(len(samples))
        return batch.inputs, samples.labels

    inputs, labels = read(one, a=[1, 2], b=[0.5, 1.5], c=[3, 4], label=[0, 1])
    assert inputs["x"].tolist() == [[1, 0.5, 3], [2, 1.5, 4]]
    assert labels.tolist() == [0, 1]
    assert read(one, x=[[1.0, 2, 3]])[0]["x"].tolist() == [[1, 2, 3]]
    assert read(several, age=[1.5], kind=[4])[0]["kind"].tolist() == [4]
    for columns, message in (
        ({"x": [[1.0, 2, 3], [1.0]]}, "column 'x'.*lists of equally many"),
        ({"a": [1, None], "b": [1, 2], "c": [1, 2]}, "column 'a'.*1 missing"),
        ({"a": ["k"], "b": [1], "c": [2]}, r"column 'a' \(string"),
        ({"y": [[1.0, 2, 3]]}, "must have the name of the input, 'x'"),
    ):
        with pytest.raises(DataError, match=message):
            read(one, **columns)
    path.write_bytes(b"no table")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        open_data(path, one)
