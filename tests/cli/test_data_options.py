import numpy as np
import onnx
import pytest
from PIL import Image

from onnx_cgmq import DataFiles, ImageOptions
from onnx_cgmq.cli.data_options import DataOptions
from onnx_cgmq.errors import ConfigError


@pytest.fixture
def quantize(cli, model, tmp_path):
    def run(*options):
        return cli("quantize", model, "--bound", "12.5%", "-o", tmp_path / "o.onnx", *options)

    return run


def test_every_option_arrives(quantize, pipeline_run):
    options = (
        "--data photos --validation held --preset tf --resize 256 --crop 224x192 --mean 0.5 "
        "--std 0.1,0.2,0.3 --scale 1/255 --bgr --layout nhwc --channels 3 --labels folders "
        "--tokenizer t.json --length 128 --rate 16000"
    )
    result = quantize(*options.split())
    assert result.exit_code == 0, result.output
    images = ImageOptions(
        preset="tf",
        resize=256,
        crop=(224, 192),
        mean=(0.5,),
        std=(0.1, 0.2, 0.3),
        scale=1 / 255,
        bgr=True,
        layout="nhwc",
        channels=3,
    )
    data = pipeline_run.called["data"]
    assert data.images == images
    assert (data.path, data.labels, str(data.tokenizer)) == ("photos", "folders", "t.json")
    assert (data.length, data.rate) == (128, 16000)
    assert pipeline_run.called["validation"].path == "held"
    assert pipeline_run.called["validation"].images == images


def test_without_them_data_is_as_it_was_given():
    assert DataOptions().of("a.npz") == "a.npz"
    assert DataOptions().of_optional(None) is None
    assert DataOptions(rate=8000).of("a") == DataFiles("a", rate=8000)


@pytest.mark.parametrize(
    "option",
    ["--resize 2x", "--crop 1x2x3", "--mean a,b", "--scale 1/0", "--preset x", "--rate 0"],
)
def test_what_cannot_be_read_is_wrong_usage(quantize, option):
    result = quantize("--data", "photos", *option.split())
    assert result.exit_code == 2
    assert option.split()[0].removeprefix("--") in result.stderr


def test_a_factory_gives_arrays_so_options_are_refused():
    with pytest.raises(ConfigError, match="my:data gives arrays"):
        DataOptions(preset="tf").of("my:data")


def test_verify_and_bench_take_images_too(cli, tmp_path):
    text = """
        <ir_version: 10, opset_import: ["" : 21]>
        sums (float[n, 3, 4, 4] x) => (float[n, 1, 4, 4] y)
        <float[1, 3, 1, 1] w = {1, 2, 3}> { y = Conv(x, w) }
    """
    path = tmp_path / "m.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    (tmp_path / "photos").mkdir()
    for number in range(3):
        pixels = np.full((4, 4, 3), number, np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    given = ("--data", tmp_path / "photos", "--preset", "raw")
    result = cli("verify", path, path, *given)
    assert result.exit_code == 0, result.output
    assert "images are" in result.stdout
    result = cli("bench", path, "--rounds", 1, *given)
    assert result.exit_code == 0, result.output
    assert "images are" in result.stdout
    assert cli("verify", path, path, *given[:2]).exit_code == 4
