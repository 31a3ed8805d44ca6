"""A run on a folder of images, as a user begins it."""

import numpy as np
import onnx
import pytest
from PIL import Image

import onnx_cgmq as cgmq

pytestmark = pytest.mark.slow


def test_a_folder_of_images_is_all_a_run_needs(tmp_path):
    text = """
        <ir_version: 10, opset_import: ["" : 21]>
        colors (float[n, 3, 8, 8] image) => (float[n, 3] scores)
        <float[3, 3, 1, 1] w = {2, -1, -1, -1, 2, -1, -1, -1, 2}>
        { a = Conv(image, w) b = GlobalAveragePool(a) scores = Flatten(b) }
    """
    for number in range(24):
        color = np.random.default_rng(number).integers(0, 60, (20, 30, 3))
        color[..., number % 3] += 150
        folder = tmp_path / "photos" / ("a-red", "b-green", "c-blue")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(color.astype(np.uint8)).save(folder / f"{number}.jpg")
    photos = cgmq.DataFiles(tmp_path / "photos", images=cgmq.ImageOptions("tf"), labels="folders")
    notes = []
    result = cgmq.quantize(
        onnx.parser.parse_model(text),
        photos,
        "6.25%",
        epochs=2,
        progress=lambda event: (
            notes.append(event.message) if isinstance(event, cgmq.Notice) else None
        ),
    )
    assert result.complete
    assert result.float_agreement.classes_compared > 0
    assert notes[0].startswith("images are resized to a shorter side of 9, then the centre 8x8")
    assert notes[1].startswith("labels are the names of folders: 0 = 'a-red', 1 = 'b-green'")
