"""Images as the input of a model: read with Pillow, resized, cropped, scaled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from onnx_cgmq.data.damage import DamagedFileError
from onnx_cgmq.data.extras import extra_package
from onnx_cgmq.data.reading import reading
from onnx_cgmq.data.specs import InputSpec, shape_text
from onnx_cgmq.errors import DataError
from onnx_cgmq.settings.image_options import PRESETS, ImageOptions, Preset, Size, size_of

SUFFIXES: Final = frozenset(
    {".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif"}
    | {".tiff", ".webp"}
)
"""How names of image files end, in lower case."""

_DEEP: Final = 0xFFFF
"""White in an image of 16 bits."""

_WHITE: Final = 0xFF


@dataclass(frozen=True)
class ImageReader:
    """Reads images as one input of a model.

    Attributes:
        spec: The input.
        options: What the user says about the images.
        values: How pixels are scaled; ``None`` leaves them as they are, for integer inputs.
        channels: 1 or 3.
        channels_last: Whether the input has its channels after rows and columns.
        crop: Height and width of the input; ``None`` leaves the size of the resized image.
    """

    spec: InputSpec
    options: ImageOptions
    values: Preset | None
    channels: int
    channels_last: bool
    crop: Size | None

    @classmethod
    def of(cls, specs: Sequence[InputSpec], options: ImageOptions, where: str) -> ImageReader:
        """Finds out how images become the input of a model.

        Args:
            specs: The inputs of the model.
            options: What the user says about it.
            where: Where the images are, for the messages.

        Raises:
            DataError: The model takes no images, or neither it nor the options say how.
            ConfigError: The options contradict each other.
        """
        if len(specs) != 1:
            raise DataError(
                f"{where}: images are for a model with one input, but this one has "
                f"{', '.join(map(str, specs))}; give arrays for all of them, in .npz files or by "
                "package.module:factory"
            )
        (spec,) = specs
        where = f"{where}: input {spec}"
        axes = None if spec.sample_axes is None else spec.sample_axes[1:]
        if axes is not None and len(axes) != 3:
            raise DataError(
                f"{where} takes no images, which have 3 axes beside the batch; "
                "give arrays in .npz files or by package.module:factory"
            )
        values = _values(spec, options, where)
        last = _channels_last(axes, options, where)
        sizes = (None, None, None) if axes is None else axes
        channels = _channels(sizes[2] if last else sizes[0], options, where)
        if values is not None:
            for name, numbers in (("mean", values.mean), ("std", values.std)):
                if len(numbers) not in (1, channels):
                    raise DataError(
                        f"{where}: {len(numbers)} numbers of {name} for {channels} channel(s); "
                        f"give --{name} for {channels}, or another --preset"
                    )
        crop = _crop(sizes[:2] if last else sizes[1:], options, where)
        return cls(spec, options, values, channels, last, crop)

    @property
    def note(self) -> str:
        """A sentence on what becomes of an image."""
        size = "as large as they are"
        if self.options.resize is not None:
            size = f"resized to {_text(self.options.resize)}"
        elif self._box is not None:
            square = self._box[0] == self._box[1]
            covered = _text(self._box[0]) if square else f"just cover {_text(self._box)}"
            size = f"resized to {covered}"
        if self.crop is not None:
            size += f", then the centre {_text(self.crop)}"
        if not self._is_told and self.crop is not None:
            size += " (one that has this size already is taken whole)"
        order = "gray" if self.channels == 1 else "BGR" if self._bgr else "RGB"
        v = self._preset
        share = round(1 / v.scale, 6)
        factor = f"/ {share:g}" if share.is_integer() else f"* {v.scale:g}"
        scaled = f"(pixel {factor} - {_numbers(v.mean)}) / {_numbers(v.std)}"
        return f"images are {size}; {order}, {scaled}"

    def read(self, path: Path) -> npt.NDArray[Any]:
        """Reads a file as an array with one sample.

        Raises:
            DamagedFileError: It is not a readable image.
            DataError: It has pixels of a kind that can't be read, or is smaller than the crop.
        """
        image = extra_package("PIL.Image", "images", str(path))
        with reading(path, "image", kind=DamagedFileError), image.open(path) as opened:
            opened.load()
            turned = extra_package("PIL.ImageOps", "images", str(path)).exif_transpose(opened)
            plain = self._plain(image, turned, path)
        pixels = np.asarray(self._cropped(image, plain, path))
        pixels = pixels.reshape(*pixels.shape[:2], self.channels)
        if self._bgr and self.channels == 3:
            pixels = pixels[:, :, ::-1]
        if self.values is not None:
            mean, std = (np.array(n, np.float32) for n in (self.values.mean, self.values.std))
            pixels = (pixels * np.float32(self.values.scale) - mean) / std
        if not self.channels_last:
            pixels = pixels.transpose(2, 0, 1)
        return np.ascontiguousarray(pixels)[None]

    @property
    def _bgr(self) -> bool:
        return self.options.bgr or (self.values is not None and self.values.bgr)

    @property
    def _is_told(self) -> bool:
        """Whether the user says how to resize or crop."""
        return self.options.resize is not None or self.options.crop is not None

    @property
    def _preset(self) -> Preset:
        return self.values or PRESETS["raw"]

    @property
    def _box(self) -> Size | None:
        """What a resized image must cover, where no size is given for it."""
        if self.crop is None:
            return None
        height, width = (round(side / self._preset.ratio) for side in self.crop)
        return height, width

    def _plain(self, image: Any, opened: Any, path: Path) -> Any:
        """Makes an image of 8 bits, with as many channels as the input."""
        mode = "L" if self.channels == 1 else "RGB"
        if opened.mode.startswith("I"):  # 16 bits, of which convert() would cut off all above 255
            deep = np.asarray(opened.convert("I"))
            if deep.min() < 0 or deep.max() > _DEEP:
                raise DataError(
                    f"{path}: pixels from {deep.min()} to {deep.max()}, more than 16 bits; save it "
                    "in 8 or 16 bits"
                )
            shallow = np.rint(deep * (_WHITE / _DEEP)).astype(np.uint8)
            return image.fromarray(shallow).convert(mode)
        if opened.mode == "F":
            raise DataError(f"{path}: pixels that are floats; save it in 8 or 16 bits")
        if opened.mode in ("P", "PA"):  # Pillow wants two steps if entries are transparent
            opened = opened.convert("RGBA")
        return opened.convert(mode)

    def _cropped(self, image: Any, plain: Any, path: Path) -> Any:
        """Resizes an image and cuts its centre out."""
        width, height = plain.size
        if not self._is_told and (height, width) == self.crop:
            return plain
        wanted = self.options.resize
        if isinstance(wanted, int):
            new = _covering((height, width), (wanted, wanted))
        elif wanted is not None:
            new = wanted
        elif self._box is not None:
            new = _covering((height, width), self._box)
        else:
            new = (height, width)
        if new != (height, width):
            plain = plain.resize(new[::-1], getattr(image.Resampling, self._preset.resampling))
        if self.crop is None or self.crop == new:
            return plain
        if new[0] < self.crop[0] or new[1] < self.crop[1]:
            raise DataError(
                f"{path}: the image is {_text(new)} after --resize, smaller than the crop of "
                f"{_text(self.crop)}; give a larger --resize, or none"
            )
        top, left = (round((n - c) / 2) for n, c in zip(new, self.crop, strict=True))
        return plain.crop((left, top, left + self.crop[1], top + self.crop[0]))


def _covering(size: Size, box: Size) -> Size:
    """The size of an image that just covers a box, and keeps its proportions."""
    (height, width), (box_height, box_width) = size, box
    if height * box_width <= width * box_height:
        return box_height, box_height * width // height
    return box_width * height // width, box_width


def _values(spec: InputSpec, options: ImageOptions, where: str) -> Preset | None:
    if spec.dtype.kind in "iu" and np.iinfo(spec.dtype).max >= _WHITE:
        if options.scaling_text:
            raise DataError(
                f"{where} takes whole pixels from 0 to 255; leave out {options.scaling_text}"
            )
        return None
    if spec.dtype.kind != "f" and spec.dtype.name != "bfloat16":
        raise DataError(f"{where} takes no pixels; give arrays in .npz files")
    values = options.values()
    if values is None:
        raise DataError(
            f"{where}: the model does not say how pixels are scaled; give --preset "
            f"({', '.join(PRESETS)}), or --scale, --mean and --std (ImageOptions in Python), as in "
            "its training"
        )
    return values


def _channels_last(
    axes: Sequence[int | str | None] | None, options: ImageOptions, where: str
) -> bool:
    if options.layout is not None:
        return options.layout == "nhwc"
    first, last = (axes is not None and axes[place] in (1, 3) for place in (0, -1))
    if first == last:
        raise DataError(
            f"{where}: its shape does not say where channels are; give --layout nchw or nhwc"
        )
    return last


def _channels(size: int | str | None, options: ImageOptions, where: str) -> int:
    if not isinstance(size, int):
        if options.channels is None:
            raise DataError(
                f"{where}: its shape does not say how many channels it has; give --channels 3, or "
                "1 for gray"
            )
        return options.channels
    if size not in (1, 3):
        raise DataError(
            f"{where} has {size} channels, but images have 1 or 3; give --layout if these are "
            "elsewhere, or arrays in .npz files"
        )
    if options.channels not in (None, size):
        raise DataError(f"{where} has {size} channel(s), not {options.channels}; leave --channels")
    return size


def _crop(sizes: Sequence[int | str | None], options: ImageOptions, where: str) -> Size | None:
    """Height and width that the model or the user wants; ``None`` if any will do."""
    fixed = [size if isinstance(size, int) else None for size in sizes]
    told = None if options.crop is None else size_of(options.crop)
    if told is None and None in fixed and not isinstance(options.resize, int):
        told = options.resize
    height, width = fixed if told is None else told
    if any(size not in (None, own) for size, own in zip(fixed, (height, width), strict=True)):
        raise DataError(
            f"{where} takes images of {shape_text(tuple(sizes))} (height, width), not "
            f"{_text(told)}; give --crop of that size"
        )
    if height is not None and width is not None:
        return height, width
    if not isinstance(options.resize, int) or (height, width) != (None, None):
        raise DataError(
            f"{where} leaves the size of images open; give --crop 224, or --resize 224x224 "
            "(height x width); --resize 256 alone makes the shorter side so long"
        )
    return None


def _text(size: int | Size | None) -> str:
    return f"a shorter side of {size}" if isinstance(size, int) else "x".join(map(str, size or ()))


def _numbers(values: Sequence[float]) -> str:
    return f"{values[0]:g}" if len(values) == 1 else "[" + ", ".join(f"{v:g}" for v in values) + "]"
