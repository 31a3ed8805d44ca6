"""Encodings: width, step and zero point of each tensor, as other tools exchange them.

They say less than a plan: they have no shapes, and one width for a whole tensor.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from onnx_cgmq.contract.bits import FLOAT_BITS, Granularity, GridForm, Role
from onnx_cgmq.contract.plan import BitPlan, FloatArray, IntArray, TensorPlan

WIDTHS = (2, 4, 8, 16, FLOAT_BITS)
"""The widths that an encoding may have."""

_NAMED = 3  # tensors that a note names


class Encoding(BaseModel):
    """The grid of one tensor: the values ``step * (code - zero_point)``.

    The codes are those of :class:`~onnx_cgmq.contract.bits.GridForm`.

    Attributes:
        role: Weight, bias or activation; a file that does not tell says weight of any constant.
        width: The width of the whole tensor; 32 stands for floats.
        form: Kind of the grid.
        step: The step, or a step for each channel: float32, at most one axis; ``None`` if only the
            width is known.
        zero_point: The zero point, or one for each channel: int64, in the shape of ``step``.
        axis: The axis of the channels; ``None`` if there is one step, or if nothing tells the axis.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    role: Role
    width: int
    form: GridForm = GridForm.SYMMETRIC
    step: FloatArray | None = None
    zero_point: Annotated[IntArray, "in the shape of step"] = np.zeros((), dtype=np.int64)
    axis: int | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Encoding:
        if self.width not in WIDTHS:
            raise ValueError(
                f"a width of {self.width} bits; widths are {', '.join(map(str, WIDTHS))}"
            )
        if self.step is None:
            return self
        if self.form is GridForm.DYNAMIC:
            raise ValueError("a grid whose range is found at run time has no step")
        if self.step.ndim > 1 or self.step.shape != self.zero_point.shape:
            raise ValueError("steps and zero points must be one each, or one each per channel")
        if not (np.isfinite(self.step) & (self.step > 0)).all():
            raise ValueError("a step is not a positive number")
        if self.form is not GridForm.AFFINE and self.zero_point.any():
            raise ValueError("only affine grids have zero points other than 0")
        return self

    @classmethod
    def create(cls, **fields: Any) -> Encoding:
        """Makes an encoding.

        Raises:
            ValueError: The fields make no sense; the message says why, on one line.
        """
        try:
            return cls(**fields)
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from error

    @property
    def is_float(self) -> bool:
        """Whether the tensor is not quantized."""
        return self.width == FLOAT_BITS


Encodings = dict[str, Encoding]
"""Encodings by tensor name."""


def encodings_of(plan: BitPlan) -> tuple[Encodings, tuple[str, ...]]:
    """Makes encodings of a plan.

    Biases are left out: integer kernels add them in steps that follow from the other tensors.

    Returns:
        The encodings of the weights and activations, and notes on what they do not say.

    Raises:
        ValueError: A tensor has no encoding; the message names it and says why.
    """
    found: Encodings = {}
    mixed, biases = [], []
    for name, tensor in plan.tensors.items():
        if tensor.role is Role.BIAS:
            if not tensor.is_float:
                biases.append(name)
            continue
        found[name] = _encoding_of(tensor)
        if np.unique(tensor.widths).size > 1:
            mixed.append(name)
    notes = []
    if biases:
        notes.append(f"{listed(biases)} left out: biases have no encodings")
    if mixed:
        notes.append(
            f"{listed(mixed)} with widths that differ by channel: the encodings have the widest one"
        )
    return found, tuple(notes)


def _encoding_of(tensor: TensorPlan) -> Encoding:
    if tensor.is_float:
        return Encoding(role=tensor.role, width=FLOAT_BITS)
    if tensor.granularity is Granularity.ELEMENT and np.unique(tensor.widths).size > 1:
        raise ValueError(
            f"tensor '{tensor.name}' has a width for each element, which encodings can't say"
        )
    varying = np.unique(tensor.widths[tensor.widths > 0])
    channels = tensor.granularity is Granularity.CHANNEL
    if varying.size != 1 and not (channels and varying.size and FLOAT_BITS not in varying):
        raise ValueError(
            f"tensor '{tensor.name}' has widths {', '.join(map(str, np.unique(tensor.widths)))}, "
            "which one encoding can't say"
        )
    if tensor.role is Role.ACTIVATION and channels:
        raise ValueError(
            f"activation '{tensor.name}' has a width for each channel, which encodings can't say"
        )
    if tensor.form is GridForm.DYNAMIC:
        return Encoding(role=tensor.role, width=tensor.grid_width)
    step = np.where(tensor.step > 0, tensor.step, np.float32(1))  # a pruned channel is all 0
    one = step.size == 1
    return Encoding(
        role=tensor.role,
        width=tensor.grid_width,
        form=tensor.form,
        step=step.reshape(()) if one else step.reshape(-1),
        zero_point=tensor.zero_point.reshape(() if one else -1),
        axis=None if one else tensor.axis,
    )


def listed(names: Iterable[str]) -> str:
    """Names tensors in a note: the first of them, and how many more there are."""
    quoted = [f"'{name}'" for name in names]
    more = f" and {len(quoted) - _NAMED} more" if len(quoted) > _NAMED else ""
    return f"{', '.join(quoted[:_NAMED])}{more}"


def largest_code(encoding: Encoding) -> npt.NDArray[np.int64]:
    """The largest code of an encoding, less its zero point."""
    if encoding.form.is_symmetric:
        return np.asarray(2 ** (encoding.width - 1) - 1 - encoding.zero_point)
    return np.asarray(2**encoding.width - 1 - encoding.zero_point)


def smallest_code(encoding: Encoding) -> npt.NDArray[np.int64]:
    """The smallest code of an encoding, less its zero point."""
    return -largest_code(encoding) if encoding.form.is_symmetric else -encoding.zero_point
