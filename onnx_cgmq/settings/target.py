"""Targets as data, read from TOML: which widths, granularities and form they allow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from onnx_cgmq.contract.bits import (
    BLOCK_SIZES,
    FLOAT_BITS,
    INTEGER_KERNEL_BITS,
    Granularity,
    Ladder,
    Ranges,
)
from onnx_cgmq.contract.form import Form
from onnx_cgmq.settings.cost_table import CostTable


def _widths(widths: tuple[int, ...]) -> tuple[int, ...]:
    if 0 in Ladder(widths).widths:
        raise ValueError("width 0 is chosen with prune=True, not by a target")
    return widths


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Granularities = Annotated[tuple[Granularity, ...], BeforeValidator(_as_list), Field(min_length=1)]


def _of_a_kernel(size: int) -> int:
    if size not in BLOCK_SIZES:
        raise ValueError(f"blocks have {_listing(BLOCK_SIZES)} elements, not {size}")
    return size


BlockSize = Annotated[int, AfterValidator(_of_a_kernel)]


class Biases(BaseModel):
    """What a target allows for biases.

    Attributes:
        widths: Widths that their gates may select, ascending. With 32, a bias is rounded only as
            the accumulator of an integer kernel (INT32) needs it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    widths: tuple[int, ...]

    _check_widths = field_validator("widths")(_widths)


class Gated(Biases):
    """What a target allows for tensors whose gates may have several granularities.

    Attributes:
        widths: Widths that their gates may select, ascending.
        granularity: Allowed granularities, the default first; a single one needs no list.
    """

    granularity: Granularities = (Granularity.TENSOR,)


class Activations(Gated):
    """What a target allows for activations.

    Attributes:
        widths: Widths that their gates may select, ascending.
        granularity: Allowed granularities, the default first; a single one needs no list.
        dynamic: Whether the range of an activation is found at run time, over the whole tensor.
            Only matrix products of an activation and a weight then read quantized activations.
    """

    dynamic: bool = False


class Weights(Gated):
    """What a target allows for weights.

    Attributes:
        widths: Widths that their gates may select, ascending.
        granularity: Allowed granularities, the default first; a single one needs no list.
        ranges: Whether a weight with one gate has one range (``tensor``), one for each output
            channel (``channel``), or one for each block of neighbours in a channel (``block``),
            along the axis that a matrix product sums over.
        block_size: Elements in a block, with ``ranges = "block"``.
    """

    ranges: Ranges = Ranges.TENSOR
    block_size: BlockSize = 64


class Target(BaseModel):
    """What a kind of hardware or runtime allows.

    Attributes:
        name: Name of the target.
        description: What it is for, in a sentence.
        weights: What it allows for weights.
        activations: What it allows for activations.
        biases: What it allows for biases; by default the widths of weights.
        integer_kernels: Put quantizers wherever values flow from one integer kernel to the next,
            and narrow tensors at 16 or 32 bits to 8 when gates settle.
        weight_kernels: Write the weights of matrix products with float activations so that
            onnxruntime multiplies them packed, without making floats of them first.
        exact_steps: Round steps to a few significant bits, so that float and integer arithmetic
            give the same codes.
        form: How the model is written.
        cost: What a multiply-accumulate costs for every pair of widths, for bounds on this cost.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    description: str = ""
    weights: Weights
    activations: Activations
    biases: Biases
    integer_kernels: bool = False
    weight_kernels: bool = False
    exact_steps: bool = False
    form: Form = Form.ORT
    cost: CostTable | None = None

    @model_validator(mode="before")
    @classmethod
    def _biases_follow_weights(cls, fields: Any) -> Any:
        if not isinstance(fields, Mapping) or "biases" in fields:
            return fields
        weights = fields.get("weights")
        widths = weights.get("widths", ()) if isinstance(weights, Mapping) else ()
        return {**fields, "biases": {"widths": widths or Ladder().widths}}

    @model_validator(mode="after")
    def _packs_in_its_form(self) -> Target:
        check_form(self.form, self.weights.ranges, weight_kernels=self.weight_kernels)
        if self.activations.dynamic:
            allowed = self.activations
            check_dynamic(self.form, allowed.widths, allowed.granularity, exact=self.exact_steps)
        return self

    @model_validator(mode="after")
    def _table_has_all_widths(self) -> Target:
        if self.cost is None:
            return self
        for what, allowed, listed in (
            ("weights", self.weights.widths, self.cost.weights),
            ("activations", self.activations.widths, self.cost.activations),
        ):
            missing = sorted({*allowed} - {*listed, FLOAT_BITS})
            if missing:
                raise ValueError(
                    f"cost: {what} of {_listing(missing)} bits are allowed but have no costs; add "
                    "them to the table"
                )
        return self

    def settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that a user did not give, with the values of this target.

        Widths and granularity of activations, and widths of biases, follow those that the user gave
        for weights, as far as the target allows.

        Args:
            given: Fields of :class:`~onnx_cgmq.settings.config.Config` that the user gave.

        Returns:
            Values for the fields that a target decides and the user did not give.
        """
        widths, granularity = given.get("widths"), given.get("granularity")
        filled: dict[str, Any] = {
            "form": self.form,
            "widths": self.weights.widths,
            "activation_widths": _following(widths, self.activations.widths),
            "bias_widths": _following(widths, self.biases.widths),
            "granularity": self.weights.granularity[0],
            "activation_granularity": _first_of(granularity, self.activations.granularity),
            "weight_ranges": self.weights.ranges,
            "block_size": self.weights.block_size,
            "dynamic_activations": self.activations.dynamic,
            "exact_steps": self.exact_steps,
            "integer_kernels": self.integer_kernels,
            "weight_kernels": self.weight_kernels,
        }
        return {name: value for name, value in filled.items() if given.get(name) is None}

    def check(
        self,
        *,
        widths: Iterable[int] = (),
        activation_widths: Iterable[int] = (),
        granularity: Granularity | None = None,
        activation_granularity: Granularity | None = None,
    ) -> None:
        """Checks that the target allows the settings of a user.

        Raises:
            ValueError: It does not; the message says what it allows.
        """
        self._check_widths("weights", widths, self.weights)
        self._check_widths("activations", activation_widths, self.activations)
        self._check_gates("weights", granularity, self.weights)
        self._check_gates("activations", activation_granularity, self.activations)

    def _check_widths(self, what: str, widths: Iterable[int], allowed: Gated) -> None:
        wrong = sorted(set(widths) - {*allowed.widths, 0})
        if wrong:
            raise ValueError(
                f"target '{self.name}' has no {what} of {_listing(wrong)} bits: choose from "
                f"{_listing(allowed.widths)}, or another target"
            )

    def _check_gates(self, what: str, chosen: Granularity | None, allowed: Gated) -> None:
        if chosen is not None and chosen not in allowed.granularity:
            raise ValueError(
                f"target '{self.name}' has no '{chosen.value}' gates for {what}: choose "
                f"{_listing(item.value for item in allowed.granularity)}, or another target"
            )


def check_form(form: Form, ranges: Ranges, *, weight_kernels: bool) -> None:
    """Checks that a form has what is asked for weights.

    Raises:
        ValueError: It has not.
    """
    if form is Form.ORT:
        return
    if weight_kernels:
        raise ValueError(f"weight_kernels are for the form '{Form.ORT.value}', not '{form.value}'")
    if ranges is Ranges.BLOCK:
        raise ValueError(
            f"the form '{form.value}' has no ranges for blocks: choose 'channel' or 'tensor', or "
            f"the form '{Form.ORT.value}'"
        )


def check_dynamic(
    form: Form, widths: Iterable[int], granularities: Iterable[Granularity], *, exact: bool
) -> None:
    """Checks that activations may have ranges that are found at run time.

    Args:
        form: The form of the file.
        widths: The widths of activations.
        granularities: Their granularities.
        exact: Whether steps are rounded.

    Raises:
        ValueError: They may not, because onnxruntime's DynamicQuantizeLinear makes 8-bit codes with
            one step, which is not rounded, and other forms have no such operator.
    """
    if form is not Form.ORT:
        raise ValueError(f"dynamic activations are for the form '{Form.ORT.value}'")
    if not {*widths} <= {INTEGER_KERNEL_BITS, FLOAT_BITS}:
        raise ValueError("dynamic activations have 8 or 32 bits: choose these as their widths")
    if {*granularities} != {Granularity.TENSOR}:
        raise ValueError("dynamic activations have one gate: choose the granularity 'tensor'")
    if exact:
        raise ValueError("dynamic activations have no exact steps: choose one of the two")


def _following(given: Any, allowed: tuple[int, ...]) -> tuple[int, ...]:
    """The allowed widths that are also given for weights; all allowed ones if there are none."""
    if not isinstance(given, (list, tuple)):
        return allowed
    return tuple(width for width in allowed if width in given) or allowed


def _first_of(given: Any, allowed: tuple[Granularity, ...]) -> Granularity:
    return next((item for item in allowed if item == given), allowed[0])


def _listing(items: Iterable[object]) -> str:
    return ", ".join(map(str, items))
