"""Small networks of the kinds that people export from torch, with inputs for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

CLASSES = 5


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut, which is a convolution too where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.first(x)))
        return F.relu(self.norm2(self.second(y)) + self.shortcut(x))


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, squeeze-excite, projection: MobileNetV3's block."""

    def __init__(self, channels: int, wide: int) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(channels, wide, 1), nn.BatchNorm2d(wide))
        self.depthwise = nn.Sequential(
            nn.Conv2d(wide, wide, 3, 1, 1, groups=wide), nn.BatchNorm2d(wide)
        )
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(wide, 4, 1),
            nn.ReLU(),
            nn.Conv2d(4, wide, 1),
            nn.Hardsigmoid(),
        )
        self.project = nn.Sequential(nn.Conv2d(wide, channels, 1), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = F.hardswish(self.depthwise(F.hardswish(self.expand(x))))
        return x + self.project(y * self.squeeze(y))


class Transformer(nn.Module):
    """Token and position embeddings, an encoder layer, the mean over the sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(20, 16)
        self.positions = nn.Embedding(12, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 32, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        positions = torch.arange(x.shape[1], device=x.device)
        y = self.encoder(self.tokens(x) + self.positions(positions))
        return self.head(y.mean(dim=1))


class UNet(nn.Module):
    """Down, up by a transposed convolution, up by interpolation; skips are concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([nn.Conv2d(3, 6, 3, 1, 1), nn.Conv2d(6, 8, 3, 1, 1)])
        self.middle = nn.Conv2d(8, 8, 3, 1, 1)
        self.transposed = nn.ConvTranspose2d(8, 8, 2, 2)
        self.up = nn.Conv2d(16, 6, 3, 1, 1)
        self.head = nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.down[0](x))
        b = F.relu(self.down[1](F.max_pool2d(a, 2)))
        y = self.transposed(F.relu(self.middle(F.max_pool2d(b, 2))))
        y = F.relu(self.up(torch.cat([y, b], dim=1)))
        y = F.interpolate(y, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.head(torch.cat([y, a], dim=1))


class Recurrent(nn.Module):
    """A bidirectional LSTM, then a layer on its last states."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 8, bidirectional=True, batch_first=True)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        _, (last, _) = self.lstm(x)
        return self.head(torch.cat([last[-2], last[-1]], dim=1))


def _mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 5)
    )


def _resnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, 1, 1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        ResidualBlock(6, 6, 1),
        ResidualBlock(6, 8, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, CLASSES),
    )


def _mobilenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.Hardswish(),
        InvertedResidual(8, 16),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 16),
        nn.Hardswish(),
        nn.Dropout(0.2),
        nn.Linear(16, CLASSES),
    )


def _floats(*shape: int) -> Callable[[int], Tensor]:
    return lambda count: torch.randn(count, *shape)


@dataclass(frozen=True)
class Network:
    """A network and what to export it with.

    Attributes:
        make: Makes it.
        inputs: ``inputs(samples)`` -> inputs for it.
        dynamic: Axes that may have any size.
    """

    make: Callable[[], nn.Module]
    inputs: Callable[[int], Tensor]
    dynamic: tuple[int, ...] = (0,)

    def module(self) -> nn.Module:
        """The network in inference, its normalization statistics those of some data."""
        torch.manual_seed(0)
        module = self.make()
        with torch.no_grad():
            module(self.inputs(32))
        return module.eval()


NETWORKS = {
    "mlp": Network(_mlp, _floats(8)),
    "resnet": Network(_resnet, _floats(3, 8, 8)),
    "mobilenet": Network(_mobilenet, _floats(3, 12, 12)),
    "transformer": Network(
        Transformer,
        lambda count: torch.randint(0, 20, (count, 7)),
        (0, 1),
    ),
    "unet": Network(UNet, _floats(3, 8, 8)),
    "lstm": Network(Recurrent, _floats(5, 6)),
}


def export(network: Network, *, dynamo: bool) -> onnx.ModelProto:
    """The network by torch's exporter, or by the older one, which traces TorchScript."""
    module, example = network.module(), network.inputs(2)
    if dynamo:
        shapes = dict.fromkeys(network.dynamic, torch.export.Dim.DYNAMIC)
        program = torch.onnx.export(
            module,
            (example,),
            input_names=["x"],
            output_names=["y"],
            dynamic_shapes=(shapes,),
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        return program.model_proto
    buffer = BytesIO()
    torch.onnx.export(
        module,
        (example,),
        buffer,
        input_names=["x"],
        output_names=["y"],
        dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}},  # it fixes sequence lengths anyway
        dynamo=False,
    )
    return onnx.ModelProto.FromString(buffer.getvalue())
