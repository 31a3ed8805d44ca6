"""The digits of ``python -m onnx_cgmq.examples`` as a data set of Olive."""

from typing import Any

import numpy as np
from olive.data.registry import Registry


class Digits:
    """Images by the name of the model's input, and labels."""

    def __init__(self, file: str) -> None:
        arrays = np.load(file)
        self.images, self.labels = arrays["image"], arrays["label"]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[dict[str, Any], Any]:
        return {"image": self.images[index]}, self.labels[index]


@Registry.register_dataset()
def digits_dataset(file: str, **kwargs: Any) -> Digits:
    """Reads an ``.npz`` file with ``image`` and ``label``."""
    return Digits(file)
