"""How images become the input of a model: what a user may say about it, and the presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from onnx_cgmq.errors import ConfigError

LAYOUTS: Final = ("nchw", "nhwc")
"""Channels before rows and columns, or after them."""

_CHANNELS: Final = (1, 3)

Size = tuple[int, int]
"""Height and width."""


@dataclass(frozen=True)
class Preset:
    """How a family of models was trained to see images.

    Attributes:
        scale: The factor of pixels, which are from 0 to 255.
        mean: Is subtracted from scaled pixels, for each channel in the order of the input.
        std: What remains is divided by this.
        bgr: Whether blue is the first channel.
        ratio: The side of the crop as a share of the shorter side of the resized image.
        resampling: The filter that resizes; a name in ``PIL.Image.Resampling``.
    """

    scale: float
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    bgr: bool = False
    ratio: float = 0.875
    resampling: str = "BILINEAR"


PRESETS: Final[Mapping[str, Preset]] = MappingProxyType(
    {
        "imagenet": Preset(1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "tf": Preset(1 / 255, (0.5,), (0.5,)),
        "caffe": Preset(1.0, (103.939, 116.779, 123.68), bgr=True),
        "clip": Preset(
            1 / 255,
            (0.48145466, 0.4578275, 0.40821073),
            (0.26862954, 0.26130258, 0.27577711),
            ratio=1.0,
            resampling="BICUBIC",
        ),
        "raw": Preset(1.0, ratio=1.0),
    }
)
"""Presets by name. ``imagenet`` is that of torchvision; ``tf`` and ``caffe`` are those of Keras."""


@dataclass(frozen=True)
class ImageOptions:
    """How images become the input of a model.

    An image is turned as its EXIF data say, resized, cropped, and becomes
    ``(pixel * scale - mean) / std``, where pixels are from 0 to 255. What is ``None`` comes from
    the preset, or from the shape of the input.

    Attributes:
        preset: ``imagenet`` (torchvision), ``tf`` (from -1 to 1), ``caffe`` (BGR, mean subtracted),
            ``clip``, or ``raw`` (0 to 255).
        resize: The length of the shorter side, or ``(height, width)``. By default the shorter side
            is as long as the preset wants it for the crop.
        crop: The side of the square that is cut out of the centre, or ``(height, width)``; by
            default the size of the input.
        mean: Is subtracted after scaling; one number, or one for each channel of the input.
        std: What remains is divided by this; as for ``mean``.
        scale: The factor of pixels, such as ``1 / 255``.
        bgr: Whether blue is the first channel of the input.
        layout: ``nchw`` or ``nhwc``, where the shape of the input does not tell.
        channels: 1 (gray) or 3, where the shape of the input does not tell.

    Raises:
        ConfigError: A value is not one of these.
    """

    preset: str | None = None
    resize: int | Size | None = None
    crop: int | Size | None = None
    mean: float | tuple[float, ...] | None = None
    std: float | tuple[float, ...] | None = None
    scale: float | None = None
    bgr: bool | None = None
    layout: str | None = None
    channels: int | None = None

    def __post_init__(self) -> None:
        _check_one_of("preset", self.preset, PRESETS)
        _check_one_of("layout", self.layout, LAYOUTS)
        _check_one_of("channels", self.channels, _CHANNELS)
        for name in ("resize", "crop"):
            _check_size(name, getattr(self, name))
        if not all(number > 0 for number in _tuple(self.std) or ()):
            raise ConfigError(f"std {self.std}: each must be above 0")
        if self.scale is not None and not self.scale > 0:
            raise ConfigError(f"scale {self.scale}: it must be above 0, such as 1/255")

    @property
    def scaling_text(self) -> str:
        """The options that say how pixels are scaled, as on the command line; may be empty."""
        names = [name for name in ("mean", "std", "scale") if getattr(self, name) is not None]
        if self.preset not in (None, "raw"):
            names.insert(0, "preset")
        return ", ".join(f"--{name}" for name in names)

    def values(self) -> Preset | None:
        """Says how pixels are scaled: the preset with what else was given; ``None`` if nothing.

        Raises:
            ConfigError: Mean or standard deviation are given, but not what they refer to.
        """
        if self.preset is None and self.scale is None:
            if self.mean is not None or self.std is not None:
                raise ConfigError(
                    "--mean and --std are those of scaled pixels, so --scale must be given too: "
                    "1/255 if they are of pixels from 0 to 1, 1 if they are of pixels to 255"
                )
            return None
        base = PRESETS[self.preset or "raw"]
        return Preset(
            scale=base.scale if self.scale is None else self.scale,
            mean=_tuple(self.mean) or base.mean,
            std=_tuple(self.std) or base.std,
            bgr=base.bgr if self.bgr is None else self.bgr,
            ratio=base.ratio if self.preset else PRESETS["imagenet"].ratio,
            resampling=base.resampling,
        )


def size_of(value: int | Size) -> Size:
    """Returns height and width; one number is a square."""
    return (value, value) if isinstance(value, int) else value


def _tuple(value: float | tuple[float, ...] | None) -> tuple[float, ...] | None:
    if value is None:
        return None
    return (float(value),) if isinstance(value, (int, float)) else tuple(map(float, value))


def _check_one_of(name: str, value: Any, allowed: Any) -> None:
    if value is not None and value not in allowed:
        raise ConfigError(f"{name} {value!r}: it must be one of {', '.join(map(str, allowed))}")


def _check_size(name: str, value: Any) -> None:
    if value is None:
        return
    sizes = (value,) if isinstance(value, int) else tuple(value)
    if len(sizes) > 2 or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise ConfigError(f"{name} {value!r}: give one positive number, or height and width")
