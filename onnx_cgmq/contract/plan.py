"""BitPlan: what was learned, per tensor. The only currency between mirror, writer and reports.

Free of torch and onnx. The JSON form is versioned, complete and readable: large arrays are packed
(zlib, base64), all else is plain numbers.
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

from onnx_cgmq.contract.bits import FLOAT_BITS, Granularity, GridForm, Role
from onnx_cgmq.errors import ModelError

PLAN_VERSION = 1
_PACK_ABOVE = 1024  # elements; shorter arrays stay readable
_NUMBERS = re.compile(r"\[[-+.,\deE\s\[\]]*\]")


def short_numbers(array: npt.NDArray[Any]) -> Any:
    """Numbers as nested lists, floats in the fewest decimals that give the same float32."""
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
        name: Value name in the prepared float graph.
        role: Weight, bias or activation.
        form: Form of the grid.
        granularity: One width per tensor, channel or element.
        shape: Shape of the tensor; activations have their batch (axis 0) as 1.
        axis: Channel axis, or ``None``.
        widths: Bits, int64; shape ``()``, ``[1, .., C, .., 1]`` or ``shape`` by granularity.
        low: Range start, float32, of the selected width (``channel``: shaped as ``widths``; else
            ``()``).
        high: Range end, like ``low``.
        step: Step, float32, like ``widths``: of each entry's own width, 0 where that is 0 or 32.
        zero_point: Integer zero point, int64, like ``widths``.
        values: Learned float values of a weight or bias before rounding, float32, ``shape``; not
            part of the JSON. Without them, writing back takes the values of the gated model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    name: str
    role: Role
    form: GridForm
    granularity: Granularity
    shape: tuple[int, ...]
    axis: int | None = None
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
                np.broadcast_shapes(array.shape, self.shape)
            except ValueError as error:
                raise ValueError(
                    f"{self.name}: {label} {array.shape} do not fit {self.shape}"
                ) from error
        return self

    @property
    def grid_width(self) -> int:
        """The widest width in the tensor: that of the integer tensor that holds it."""
        return int(self.widths.max())

    @property
    def is_float(self) -> bool:
        """Whether no entry is quantized."""
        return bool((self.widths == FLOAT_BITS).all())

    @property
    def is_uniform(self) -> bool:
        """Whether all entries have one width, and a step for the tensor or for each channel."""
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
        bops: Bit operations for one sample: sum over MACs of weight bits x activation bits.
        rbop: ``bops`` as a share of the float model's (1024 per MAC).
        macs: Multiply-accumulates for one sample.
        weight_bytes: Bytes of the stored weights, biases and tables at their written widths.
        bops_by_node: Bit operations of every MAC node (of each of its products, with a suffix).
        peak_activation_bytes: Bytes of the activations that are needed at the same time, at most,
            for one sample; counted if a bound asks for it.
        table_cost: What the multiply-accumulates of one sample cost by the target's table, if any.
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
        version: Version of the JSON form.
        bound: The bound as the user gave it (``"0.4%"``), several with commas, or ``None``.
        tensors: Plans by tensor name, in graph order.
        cost: Total cost; ``None`` if nobody counted it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = PLAN_VERSION
    bound: str | None = None
    tensors: dict[str, TensorPlan]
    cost: PlanCost | None = None

    def to_json(self, indent: int | None = 2) -> str:
        """JSON text; ``indent=None`` for one line."""
        text = json.dumps(self.model_dump(mode="json"), indent=indent)
        return _NUMBERS.sub(_on_one_line, text)

    @classmethod
    def from_json(cls, text: str) -> BitPlan:
        """Inverse of :meth:`to_json`.

        Raises:
            ModelError: The text is not a plan, or of a newer version.
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
        """Writes the JSON file."""
        Path(path).write_text(self.to_json() + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> BitPlan:
        """Reads a JSON file."""
        return cls.from_json(Path(path).read_text(encoding="utf-8"))
