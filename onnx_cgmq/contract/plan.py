"""BitPlan: what was learned about each tensor. Mirror, writer and reports exchange nothing else.

This module needs neither torch nor onnx. The JSON text has a version and is complete and readable:
only large arrays are packed (zlib, base64).
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from onnx_cgmq.contract.bits import FLOAT_BITS, Granularity, GridForm, Role, in_blocks
from onnx_cgmq.contract.replace import replaced
from onnx_cgmq.errors import ModelError

PLAN_VERSION = 1
_PACK_ABOVE = 1024  # elements; smaller arrays stay readable
_NUMBERS = re.compile(r"\[[-+.,\deE\s\[\]]*\]")


def short_numbers(array: npt.NDArray[Any]) -> Any:
    """Makes nested lists of an array, with the fewest decimals that give the same float32."""
    if array.dtype.kind != "f":
        return array.tolist()
    return np.array([float(str(v)) for v in array.reshape(-1)]).reshape(array.shape).tolist()


def _encode(array: npt.NDArray[Any]) -> Any:
    if array.size <= _PACK_ABOVE:
        return short_numbers(array)
    small = (
        array.astype(np.uint8)
        if array.dtype == np.int64 and array.min() >= 0 and array.max() < 256
        else array
    )
    packed = base64.b64encode(zlib.compress(np.ascontiguousarray(small).tobytes(), 9)).decode()
    return {"shape": list(array.shape), "dtype": str(small.dtype), "zlib_base64": packed}


def _decode(dtype: type[np.generic]) -> BeforeValidator:
    def decode(value: Any) -> npt.NDArray[Any]:
        if isinstance(value, Mapping):
            raw = zlib.decompress(base64.b64decode(value["zlib_base64"]))
            value = np.frombuffer(raw, dtype=value["dtype"]).reshape(value["shape"])
        array = np.array(value, dtype=dtype)
        array.flags.writeable = False
        return array

    return BeforeValidator(decode)


IntArray = Annotated[npt.NDArray[np.int64], _decode(np.int64), PlainSerializer(_encode)]
FloatArray = Annotated[npt.NDArray[np.float32], _decode(np.float32), PlainSerializer(_encode)]


def _on_one_line(numbers: re.Match[str]) -> str:
    return ", ".join("".join(part.split()) for part in numbers[0].split(","))


class TensorPlan(BaseModel):
    """Width, range and grid of one tensor.

    Attributes:
        name: Name of the tensor in the prepared float graph.
        role: Weight, bias or activation.
        form: Kind of the grid.
        granularity: Whether the tensor has one width, or one per channel or element.
        shape: Shape of the tensor; the batch of an activation (axis 0) is 1.
        axis: Channel axis, or ``None``.
        block: How many neighbours of a channel share a range, in a matrix with ranges for blocks
            (:class:`~onnx_cgmq.contract.bits.Ranges`); else ``None``.
        widths: Widths, int64; the shape is ``()``, ``[1, .., C, .., 1]`` or ``shape``, as
            ``granularity`` says.
        low: Start of the range of the selected width, float32 (``channel``: in the shape of
            ``widths``; else ``()``).
        high: End of that range, as ``low``.
        step: Step of each entry at its own width, float32, in the shape of ``widths``; 0 where the
            width is 0 or 32. If channels or blocks have ranges of their own, it has their shape,
            which broadcasts to ``view_shape``.
        zero_point: Integer zero point, int64, in the shape of ``widths``.
        values: Learned float values of a weight or bias before rounding, float32, in ``shape``. The
            JSON text does not have them. Without them, ``write_back`` takes the values of the gated
            model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    name: str
    role: Role
    form: GridForm
    granularity: Granularity
    shape: tuple[int, ...]
    axis: int | None = None
    block: int | None = None
    widths: IntArray
    low: FloatArray
    high: FloatArray
    step: FloatArray
    zero_point: IntArray
    values: Annotated[Any, Field(exclude=True, repr=False)] = None

    @model_validator(mode="after")
    def _consistent(self) -> TensorPlan:
        if not np.isin(self.widths, (0, 2, 4, 8, 16, 32)).all():
            raise ValueError(f"{self.name}: widths must be 0, 2, 4, 8, 16 or 32")
        for label, array in (("widths", self.widths), ("step", self.step)):
            try:
                np.broadcast_shapes(array.shape, self.view_shape)
            except ValueError as error:
                raise ValueError(
                    f"{self.name}: {label} {array.shape} do not fit {self.view_shape}"
                ) from error
        return self

    @property
    def view_shape(self) -> tuple[int, ...]:
        """The shape to which the tensor is reshaped before its steps broadcast to it."""
        return in_blocks(self.shape, self.axis, self.block)

    @property
    def grid_width(self) -> int:
        """The widest width in the tensor, which the integer tensor that holds it must have."""
        return int(self.widths.max())

    @property
    def is_float(self) -> bool:
        """Whether no entry is quantized."""
        return bool((self.widths == FLOAT_BITS).all())

    @property
    def is_uniform(self) -> bool:
        """Whether all entries have the same width, with one step or one per channel."""
        return self.granularity is not Granularity.ELEMENT and bool(
            (self.widths == self.grid_width).all()
        )

    @property
    def mean_bits(self) -> float:
        """Mean width over the elements of the tensor."""
        return (
            float(np.broadcast_to(self.widths, self.shape).mean())
            if self.shape
            else float(self.widths)
        )


class PlanCost(BaseModel):
    """What a plan costs.

    Attributes:
        bops: Bit operations for one sample: the sum over MACs of weight bits x activation bits.
        rbop: ``bops`` as a share of the float model's (1024 per MAC).
        macs: Multiply-accumulates for one sample.
        weight_bytes: Bytes of the stored weights, biases and embedding tables, as written.
        bops_by_node: Bit operations of every MAC node. A node with several products has an entry
            for each, with a suffix.
        peak_activation_bytes: The most bytes of activations that are needed at the same time, for
            one sample; ``None`` unless a bound limits it.
        table_cost: Cost of the multiply-accumulates of one sample by the cost table of the target;
            ``None`` if it has no table.
        table_unit: Unit of that table.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bops: int
    rbop: float
    macs: int
    weight_bytes: int
    bops_by_node: dict[str, int]
    peak_activation_bytes: int | None = None
    table_cost: float | None = None
    table_unit: str | None = None


class BitPlan(BaseModel):
    """The whole plan: every gated tensor, the cost, and the bound that was kept.

    Attributes:
        version: Version of the JSON text.
        bound: The bound as the user gave it (``"0.4%"``; several are joined by commas), or
            ``None``.
        tensors: The plan of each tensor by its name, in graph order.
        cost: The cost, or ``None`` if it was not counted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = PLAN_VERSION
    bound: str | None = None
    tensors: dict[str, TensorPlan]
    cost: PlanCost | None = None

    def to_json(self, indent: int | None = 2) -> str:
        """Makes JSON text of the plan; ``indent=None`` puts it on one line."""
        text = json.dumps(self.model_dump(mode="json"), indent=indent)
        return _NUMBERS.sub(_on_one_line, text)

    @classmethod
    def from_json(cls, text: str) -> BitPlan:
        """Reads a plan from the text of :meth:`to_json`.

        Raises:
            ModelError: The text is not a plan, or has another version.
        """
        try:
            fields = json.loads(text)
        except json.JSONDecodeError as error:
            raise ModelError(f"not a bit plan: {error}") from error
        version = fields.get("version") if isinstance(fields, dict) else None
        if version != PLAN_VERSION:
            raise ModelError(
                f"bit plan version {version!r}; this onnx-cgmq reads version {PLAN_VERSION}"
            )
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise ModelError(f"invalid bit plan: {error}") from error

    def save(self, path: str | Path) -> None:
        """Writes the plan to a JSON file, atomically.

        Raises:
            OutputError: It can't be written; an older file of that name is left as it was.
        """
        with replaced(path) as part:
            part.write_text(self.to_json() + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> BitPlan:
        """Reads a plan from a JSON file."""
        return cls.from_json(Path(path).read_text(encoding="utf-8"))
