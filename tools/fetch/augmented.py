"""Labelled images that are moved and mirrored anew in each epoch, as image classifiers are trained.

Without that a network that was trained on the same images knows nearly all their labels already.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]

_LARGEST_SHIFT = 4  # pixels, as usual for CIFAR-10


class AugmentedImages:
    """A loader of batches: each image is moved by up to 4 pixels, and every second one mirrored.

    What moves in is the image's own edge, mirrored. Each pass draws anew, by a seed of its own.
    """

    def __init__(self, images: Arrays, batch_size: int = 128) -> None:
        """Takes arrays by name: one with images ``[N, C, H, W]``, and ``label``."""
        (self._name,) = (name for name in images if name != "label")
        self._images, self._labels = images[self._name], images["label"]
        self._batch_size, self._passes = batch_size, 0

    def __len__(self) -> int:
        """The number of batches."""
        return -(-len(self._images) // self._batch_size)

    def __iter__(self) -> Iterator[Arrays]:
        generator = np.random.default_rng(self._passes)
        self._passes += 1
        order = generator.permutation(len(self._images))
        for start in range(0, len(order), self._batch_size):
            chosen = order[start : start + self._batch_size]
            moved = _moved(self._images[chosen], generator)
            yield {self._name: moved, "label": self._labels[chosen]}


def _moved(images: npt.NDArray[Any], generator: np.random.Generator) -> npt.NDArray[Any]:
    height, width = images.shape[2:]
    edges = ((0, 0), (0, 0), (_LARGEST_SHIFT,) * 2, (_LARGEST_SHIFT,) * 2)
    padded = np.pad(images, edges, mode="reflect")
    offsets = generator.integers(0, 2 * _LARGEST_SHIFT + 1, (len(images), 2))
    moved = np.stack(
        [
            image[:, y : y + height, x : x + width]
            for image, (y, x) in zip(padded, offsets, strict=True)
        ]
    )
    mirrored = generator.random(len(images)) < 0.5
    moved[mirrored] = moved[mirrored][..., ::-1]
    return moved


def held_out(images: Arrays, count: int, seed: int = 0) -> tuple[Arrays, Arrays]:
    """Splits arrays of N samples into ``(N - count, count)`` at random."""
    order = np.random.default_rng(seed).permutation(len(images["label"]))
    return tuple(  # type: ignore[return-value]
        {name: array[part] for name, array in images.items()}
        for part in (np.sort(order[count:]), np.sort(order[:count]))
    )
