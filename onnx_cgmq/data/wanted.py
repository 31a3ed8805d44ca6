"""What the data for a model must and may have."""

from __future__ import annotations

from dataclasses import dataclass

from onnx_cgmq.data.checks import check_inputs, check_labels
from onnx_cgmq.data.files import Loaded
from onnx_cgmq.data.readers import Item
from onnx_cgmq.data.specs import InputSpec


@dataclass(frozen=True)
class Wanted:
    """What the data for a model must and may have.

    Attributes:
        specs: The inputs that it must have.
        outputs: The outputs for which it may have target values.
        classes: Number of classes, which its labels must be below; ``None`` if it is not known.
    """

    specs: tuple[InputSpec, ...]
    outputs: tuple[str, ...]
    classes: int | None

    @property
    def names(self) -> list[str]:
        """Names of the inputs."""
        return [spec.name for spec in self.specs]

    def checked(self, item: Item, where: str) -> Loaded:
        """Checks arrays and labels, and converts them to the types of the inputs.

        Raises:
            DataError: They do not fit the model.
        """
        arrays, labels = item
        inputs = check_inputs(arrays, self.specs, where, self.outputs)
        count = len(next(iter(inputs.values())))
        if labels is None:
            return Loaded(inputs, None)
        return Loaded(inputs, check_labels(labels, count, self.classes, where))
