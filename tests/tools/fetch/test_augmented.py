"""Images that are moved and mirrored anew in each pass."""

from __future__ import annotations

import numpy as np

from tools.fetch.augmented import AugmentedImages, held_out


def _images(count: int = 10) -> dict[str, np.ndarray]:
    pixels = np.random.default_rng(0).random((count, 3, 16, 16)).astype(np.float32)
    return {"image": pixels, "label": np.arange(count)}


def test_each_pass_has_every_label_once_and_other_images() -> None:
    loader = AugmentedImages(_images(), batch_size=4)
    first, second = list(loader), list(loader)
    assert len(loader) == len(first) == len(second) == 3
    for batches in (first, second):
        labels = np.concatenate([batch["label"] for batch in batches])
        assert sorted(labels) == list(range(10))
    assert not np.array_equal(first[0]["image"], second[0]["image"])
    assert first[0]["image"].shape == (4, 3, 16, 16)


def test_the_middle_of_an_image_stays_in_the_picture() -> None:
    """A mark is moved by four pixels at most, and may come from the right to the left."""
    image = np.zeros((1, 1, 16, 16), np.float32)
    image[0, 0, 7, 5] = 1
    loader, found = AugmentedImages({"image": image, "label": np.zeros(1, np.int64)}), set()
    for _ in range(200):
        (batch,) = loader
        (place,) = np.argwhere(batch["image"][0, 0])
        found.add(tuple(place.tolist()))
    rows, columns = {y for y, _ in found}, {x for _, x in found}
    assert rows == set(range(3, 12))
    assert columns == {*range(1, 10), *range(6, 15)}


def test_held_out_images_are_no_others() -> None:
    images = _images()
    train, chosen = held_out(images, 3)
    assert len(train["label"]) == 7
    assert sorted([*train["label"], *chosen["label"]]) == list(range(10))
    np.testing.assert_array_equal(train["image"], images["image"][train["label"]])
