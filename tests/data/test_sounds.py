import sys
import wave
from types import SimpleNamespace

import numpy as np
import pytest

from onnx_cgmq import DataFiles
from onnx_cgmq.data import open_data
from onnx_cgmq.errors import DataError
from tests.support.inputs import input_model


def read_wave(path, dtype, always_2d):
    """Stands in for ``soundfile.read``, for files of 16 bits."""
    assert (dtype, always_2d) == ("float32", True)
    with wave.open(str(path)) as file:
        pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        return pcm.reshape(-1, file.getnchannels()).astype("float32") / 32768, file.getframerate()


@pytest.fixture(params=["stand-in", "soundfile"])
def reader(request, monkeypatch):
    if request.param == "soundfile":
        pytest.importorskip("soundfile")
    else:
        monkeypatch.setitem(sys.modules, "soundfile", SimpleNamespace(read=read_wave))


def save(path, values, rate=8000, channels=1):
    path.parent.mkdir(exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.array(values) * 32768).astype(np.int16).tobytes())


@pytest.mark.usefixtures("reader")
def test_sounds_are_cut_and_filled_to_the_size_of_the_model(tmp_path):
    save(tmp_path / "yes" / "a.wav", [0.5, -0.25])
    save(tmp_path / "no" / "b.wav", [0.125, 0.25, 0.375, 0.5])
    for dims in (["n", 3], ["n", 1, 3]):
        samples = open_data(tmp_path, input_model(2, x=dims))
        (batch,) = samples.batches(4)
        values = batch.inputs["x"]
        assert values.shape == (2, *dims[1:])
        assert values.reshape(2, 3).tolist() == [[0.125, 0.25, 0.375], [0.5, -0.25, 0]]
        assert "zeros are added" in samples.notes[0]
    labels = open_data(DataFiles(tmp_path, labels="folders"), input_model(2, x=["n", 3])).labels
    assert labels.tolist() == [0, 1]


@pytest.mark.usefixtures("reader")
def test_an_open_length_is_that_of_the_sound(tmp_path):
    save(tmp_path / "a.wav", [0.5, -0.25])
    save(tmp_path / "b.wav", [0.125])
    samples = open_data(tmp_path, input_model(x=["n", "time"]))
    assert sorted(batch.inputs["x"].shape for batch in samples.batches(4)) == [(1, 1), (1, 2)]


@pytest.mark.usefixtures("reader")
def test_sounds_that_are_refused(tmp_path, monkeypatch):
    model = input_model(x=["n", 3])
    save(tmp_path / "a.wav", [0.5])
    save(tmp_path / "b.wav", [0.5], rate=16000)
    with pytest.raises(DataError, match=r"b\.wav: a rate of 16000 Hz, but .*a\.wav says 8000"):
        open_data(tmp_path, model)
    with pytest.raises(DataError, match=r"a\.wav: a rate of 8000 Hz, but --rate says 16000"):
        open_data(DataFiles(tmp_path, rate=16000), model)
    save(tmp_path / "a.wav", [0.5, 0.5], channels=2)
    with pytest.raises(DataError, match=r"a\.wav: 2 channels"):
        open_data(tmp_path, model)
    save(tmp_path / "a.wav", [])
    with pytest.raises(DataError, match=r"a\.wav: a sound without values"):
        open_data(tmp_path, model)
    (tmp_path / "a.wav").write_bytes(b"no sound")
    with pytest.raises(DataError, match=r"a\.wav: not a readable sound"):
        open_data(tmp_path, model)
    with pytest.raises(DataError, match="sounds are for a model with one input of floats"):
        open_data(tmp_path, input_model(x=["n", 1, 64, 101]))
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(DataError, match=r"pip install 'onnx-cgmq\[audio\]'"):
        open_data(tmp_path, model)
