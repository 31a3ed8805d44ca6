import sys

import numpy as np
import onnx
import pytest
from PIL import Image

from onnx_cgmq import DataFiles, ImageOptions
from onnx_cgmq.data import open_data
from onnx_cgmq.errors import ConfigError, DataError
from tests.support.inputs import FLOAT, UINT8, input_model

RAW = ImageOptions(preset="raw")


def model_of(*dims, dtype=FLOAT, classes=3):
    return input_model(classes, x=(dtype, dims))


@pytest.fixture
def color():
    return model_of("n", 3, 4, 6)


def save(path, color=(10, 20, 30), size=(4, 6), **how):
    """Saves an image of one colour; ``size`` is height and width."""
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.new("RGB", size[::-1], color).save(path, **how)
    return path


def read(path, model, options=RAW, **settings):
    return open_data(DataFiles(path, images=options, **settings), model)


def first(path, model, options=RAW):
    (batch,) = read(path, model, options).batches(8)
    return batch.inputs["x"]


# -- folders ----------------------------------------------------------------------------------


def test_a_folder_is_read_in_sorted_order_with_the_folders_in_it(color, tmp_path):
    for number, name in enumerate(["a2.png", "a10.webp", "sub/c.PNG", "sub/deep/b.bmp"]):
        save(tmp_path / name, (number, 0, 0), lossless=True)
    save(tmp_path / ".hidden.png", (9, 0, 0))
    save(tmp_path / ".trash" / "a.png", (9, 0, 0))
    (tmp_path / "notes.txt").write_text("none")
    samples = read(tmp_path, color)
    (batch,) = samples.batches(8)
    assert batch.inputs["x"].shape == (4, 3, 4, 6)
    assert batch.inputs["x"][:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert not samples.has_labels  # folders are no classes unless the user says so
    assert any("1 .txt" in note for note in samples.notes)


def test_a_single_image(color, tmp_path):
    assert first(save(tmp_path / "a.png"), color).shape == (1, 3, 4, 6)


def test_a_link_to_a_folder_above_ends(color, tmp_path):
    save(tmp_path / "a.png")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert len(read(tmp_path, color)) == 1


def test_without_pillow_a_message_says_how_to_install_it(color, tmp_path, monkeypatch):
    save(tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(DataError, match=r"pip install 'onnx-cgmq\[images\]'"):
        read(tmp_path, color)


def test_images_and_sounds_together_are_refused(color, tmp_path):
    save(tmp_path / "a.png")
    (tmp_path / "b.wav").write_bytes(b"")
    with pytest.raises(DataError, match="images and sounds"):
        read(tmp_path, color)


# -- from pixels to values --------------------------------------------------------------------


def test_presets(color, tmp_path):
    path = save(tmp_path / "a.png", (255, 51, 0))

    def values(**options):
        return first(path, color, ImageOptions(**options))[0, :, 0, 0]

    assert values(preset="raw").tolist() == [255, 51, 0]
    assert values(preset="raw", bgr=True).tolist() == [0, 51, 255]
    np.testing.assert_allclose(values(preset="tf"), [1, -0.6, -1], atol=1e-6)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(values(preset="imagenet"), ([1, 0.2, 0] - mean) / std, rtol=1e-5)
    np.testing.assert_allclose(values(preset="caffe"), [-103.939, 51 - 116.779, 255 - 123.68])
    np.testing.assert_allclose(values(preset="caffe", bgr=False), [151.061, -65.779, -123.68])
    np.testing.assert_allclose(values(scale=1 / 255), [1, 0.2, 0], atol=1e-6)
    np.testing.assert_allclose(values(scale=1, mean=5.0, std=(1, 2, 5)), [250, 23, -1])
    assert values(preset="clip").shape == (3,)


def test_how_pixels_are_scaled_is_never_guessed(color, tmp_path):
    path = save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"input 'x'.*give --preset \(imagenet, tf"):
        open_data(path, color)
    with pytest.raises(ConfigError, match="--scale must be given"):
        first(path, color, ImageOptions(mean=0.5))
    with pytest.raises(DataError, match="2 numbers of mean for 3 channel"):
        first(path, color, ImageOptions(scale=1, mean=(1, 2)))


def test_integer_inputs_get_raw_pixels(tmp_path):
    path = save(tmp_path / "a.png", (255, 51, 0))
    model = model_of("n", 4, 6, 3, dtype=UINT8)
    (batch,) = open_data(path, model).batches(1)
    assert batch.inputs["x"].dtype == np.uint8
    assert batch.inputs["x"][0, 0, 0].tolist() == [255, 51, 0]
    with pytest.raises(DataError, match=r"takes whole pixels.*leave out --preset"):
        first(path, model, ImageOptions(preset="tf"))
    with pytest.raises(DataError, match="takes no pixels"):
        open_data(path, model_of("n", 4, 6, 3, dtype=onnx.TensorProto.INT8))


# -- size, layout, channels -------------------------------------------------------------------


def gradient(path, height, width):
    """Red is the row, green the column."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, :, 0], pixels[:, :, 1] = np.arange(height)[:, None], np.arange(width)
    Image.fromarray(pixels).save(path)
    return path


def test_the_centre_is_cut_out(tmp_path):
    model = model_of("n", 3, 4, 6)
    pixels = first(gradient(tmp_path / "a.png", 8, 12), model, ImageOptions("raw", resize=(8, 12)))
    assert pixels[0, 0, :, 0].tolist() == [2, 3, 4, 5]
    assert pixels[0, 1, 0].tolist() == [3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize(("size", "resized"), [((40, 80), (32, 64)), ((90, 30), (96, 32))])
def test_without_resize_the_preset_says_how_much_is_cut_off(tmp_path, size, resized):
    """As torchvision does it: the shorter side is 28 / 0.875 = 32 long, then the centre is cut."""
    path = gradient(tmp_path / "a.png", *size)
    with Image.open(path) as image:
        whole = np.asarray(image.resize(resized[::-1], Image.Resampling.BILINEAR), np.float32)
    top, left = (round((side - 28) / 2) for side in resized)
    expected = whole[top : top + 28, left : left + 28].transpose(2, 0, 1) / 127.5 - 1
    samples = read(path, model_of("n", 3, 28, 28), ImageOptions("tf"))
    (batch,) = samples.batches(1)
    np.testing.assert_allclose(batch.inputs["x"][0], expected, atol=1e-6)
    assert samples.notes[0] == (
        "images are resized to a shorter side of 32, then the centre 28x28 (one that has this size "
        "already is taken whole); RGB, (pixel / 255 - 0.5) / 0.5"
    )


def test_an_image_of_the_right_size_is_taken_whole(tmp_path):
    path = gradient(tmp_path / "a.png", 28, 28)
    pixels = first(path, model_of("n", 3, 28, 28), ImageOptions("imagenet", mean=0, std=1, scale=1))
    assert pixels[0, 0, :, 0].tolist() == list(range(28))


def test_resize_is_of_the_shorter_side(tmp_path):
    path = save(tmp_path / "a.png", size=(20, 40))
    open_size = model_of("n", 3, "h", "w")
    assert first(path, open_size, ImageOptions("raw", resize=10)).shape == (1, 3, 10, 20)
    assert first(path, open_size, ImageOptions("raw", resize=(5, 7))).shape == (1, 3, 5, 7)
    assert first(path, open_size, ImageOptions("raw", crop=8)).shape == (1, 3, 8, 8)
    assert first(path, open_size, ImageOptions("raw", resize=10, crop=8)).shape == (1, 3, 8, 8)
    with pytest.raises(DataError, match=r"a\.png: the image is 6x12 after --resize, smaller"):
        first(path, open_size, ImageOptions("raw", resize=6, crop=8))
    with pytest.raises(DataError, match="leaves the size of images open; give --crop"):
        first(path, open_size)
    with pytest.raises(DataError, match=r"\[8, 8\] \(height, width\), not 9x9; give --crop"):
        first(path, model_of("n", 3, 8, 8), ImageOptions("raw", crop=9))


def test_images_of_several_sizes_go_into_several_batches(tmp_path):
    save(tmp_path / "a.png", size=(8, 16))
    save(tmp_path / "b.png", size=(8, 8))
    samples = read(tmp_path, model_of("n", 3, "h", "w"), ImageOptions("raw", resize=4))
    assert sorted(b.inputs["x"].shape for b in samples.batches(2)) == [(1, 3, 4, 4), (1, 3, 4, 8)]


def test_layout_and_channels_are_asked_for_where_the_shape_is_silent(tmp_path):
    path = save(tmp_path / "a.png", (10, 10, 10))
    assert first(path, model_of("n", 4, 6, 1)).shape == (1, 4, 6, 1)
    assert first(path, model_of("n", 1, 4, 6))[0, 0, 0, 0] == 10
    silent = model_of("n", "a", "b", "c")
    size = {"preset": "raw", "crop": (4, 6)}
    with pytest.raises(DataError, match="--layout"):
        first(path, silent, ImageOptions(**size))
    with pytest.raises(DataError, match="--channels"):
        first(path, silent, ImageOptions(**size, layout="nhwc"))
    told = ImageOptions(**size, layout="nhwc", channels=3)
    assert first(path, silent, told).shape == (1, 4, 6, 3)
    with pytest.raises(DataError, match="has 4 channels"):
        first(path, model_of("n", 4, 6, 6), ImageOptions("raw", layout="nchw"))
    with pytest.raises(DataError, match=r"\[n, 7\] takes no images"):
        first(path, model_of("n", 7))


# -- all kinds of files -----------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1", "I;16", "I"])
def test_modes(tmp_path, mode, color):
    white = {"CMYK": (0, 0, 0, 0), "RGBA": (255, 255, 255, 128), "LA": (255, 0), "I": 65535}
    white |= {"I;16": 65535, "1": 1}
    image = Image.new(mode, (6, 4), white.get(mode, 255))
    if mode == "P":
        image = Image.new("RGB", (6, 4), (255, 255, 255)).convert("P")
        image.info["transparency"] = bytes([7] * 256)
    path = tmp_path / ("a.tif" if mode in ("CMYK", "I") else "a.png")
    image.save(path)
    assert (first(path, color) == 255).all()
    assert (first(path, model_of("n", 1, 4, 6)) == 255).all()


def test_sixteen_bits_are_scaled_to_eight(tmp_path, color):
    Image.fromarray(np.full((4, 6), 257 * 100, np.uint16)).save(tmp_path / "a.png")
    assert (first(tmp_path / "a.png", color) == 100).all()
    Image.fromarray(np.full((4, 6), 70000, np.int32)).save(tmp_path / "b.tif")
    with pytest.raises(DataError, match=r"b\.tif: .*more than 16 bits"):
        first(tmp_path / "b.tif", color)
    Image.fromarray(np.full((4, 6), 0.5, np.float32)).save(tmp_path / "c.tif")
    with pytest.raises(DataError, match=r"c\.tif: pixels that are floats"):
        first(tmp_path / "c.tif", color)


def test_exif_turns_an_image(tmp_path):
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    turned = first(tmp_path / "a.png", model_of("n", 3, 3, 2))
    assert np.argwhere(turned[0, 0]).tolist() == [[0, 1]]


def test_a_few_damaged_files_are_left_out_and_named(tmp_path, color):
    for number in range(39):
        save(tmp_path / f"{number}.png", (number, 0, 0))
    whole = (tmp_path / "0.png").read_bytes()
    (tmp_path / "7.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "39.png").write_bytes(b"no image")
    samples = read(tmp_path, color)
    assert len(samples) == 38
    (note,) = (note for note in samples.notes if "damaged" in note)
    assert note.startswith("2 of 40 files are damaged and left out")
    assert "7.png" in note
    assert "39.png" in note
    reds = np.concatenate([batch.inputs["x"][:, 0, 0, 0] for batch in samples.batches(10)])
    assert reds.tolist() == [number for number in range(39) if number != 7]
    (tmp_path / "8.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"39\.png: not a readable image.*only one in 20"):
        read(tmp_path, color)


# -- labels -----------------------------------------------------------------------------------


def test_labels_of_folders(tmp_path, color):
    for name in ("cat/x/1.png", "dog/1.png", "bee/1.png"):
        save(tmp_path / name)
    samples = read(tmp_path, color, labels="folders")
    assert samples.labels.tolist() == [0, 1, 2]  # bee, cat, dog
    assert any("0 = 'bee', 1 = 'cat', 2 = 'dog'" in note for note in samples.notes)
    with pytest.raises(DataError, match="3 folders for the 4 classes"):
        read(tmp_path, model_of("n", 3, 4, 6, classes=4), labels="folders")
    save(tmp_path / "1.png")
    with pytest.raises(DataError, match=r"1\.png is in no folder"):
        read(tmp_path, color, labels="folders")


def test_folders_that_are_numbers(tmp_path):
    for name in ("2", "10"):
        save(tmp_path / name / "1.png")
    many = model_of("n", 3, 4, 6, classes=20)
    assert read(tmp_path, many, labels="folders").labels.tolist() == [2, 10]
    for model in (model_of("n", 3, 4, 6, classes=2), model_of("n", 3, 4, 6, classes="c")):
        with pytest.raises(DataError, match="it is open which of both"):
            read(tmp_path, model, labels="folders")


def test_labels_of_a_table(tmp_path, color):
    for name in ("photos/a/1.png", "photos/b/1.png", "photos/b/2.png"):
        save(tmp_path / name)
    table = tmp_path / "labels.csv"

    def labels(text):
        table.write_text(text)
        return read(tmp_path / "photos", color, labels=table).labels.tolist()

    assert labels("name,label\na/1.png,2\n./b/1.png,0\n2.png,1\nother.png,0\n") == [2, 0, 1]
    with pytest.raises(DataError, match=r"labels\.csv: no label for b/1\.png"):
        labels("a/1.png,2\n1.png,0\n2.png,1\n")
    with pytest.raises(DataError, match=r"line 2: label 'cat'.*index of its class"):
        labels("a/1.png,dog\nb/1.png,cat\n")
    with pytest.raises(DataError, match=r"line 2: a/1\.png has the label 2 in a line before"):
        labels("a/1.png,2\na/1.png,1\n")
    with pytest.raises(DataError, match="not a class index of the model"):
        labels("a/1.png,7\nb/1.png,0\n2.png,1\n")
    with pytest.raises(DataError, match="line 1: 3 values"):
        labels("a/1.png,7,1\n")


# -- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"preset": "x"},
        {"layout": "chw"},
        {"channels": 4},
        {"resize": 0},
        {"crop": (1, 2, 3)},
        {"std": 0},
        {"std": (1, -1)},
        {"scale": 0},
    ],
)
def test_wrong_options_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        ImageOptions(**options)


def test_settings_without_effect_are_refused(tmp_path, color):
    path = save(tmp_path / "a.png")
    with pytest.raises(DataError, match="rate have no effect on images"):
        read(path, color, rate=8000)
    np.savez(tmp_path / "a.npz", x=np.zeros((1, 3, 4, 6), np.float32))
    with pytest.raises(DataError, match="images have no effect on a file of arrays"):
        read(tmp_path / "a.npz", color)
    assert len(open_data(DataFiles(tmp_path / "a.npz"), color)) == 1
