"""The settings of a run, validated. Only the bound, which is not one of them, must be given."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    ValidationError,
    field_validator,
    model_validator,
)

from onnx_cgmq.contract.bits import FLOAT_BITS, Granularity, GridForm, Ladder, Ranges
from onnx_cgmq.contract.form import Form
from onnx_cgmq.errors import ConfigError
from onnx_cgmq.settings import DEFAULT_TARGET, Target, TargetLike, load_target
from onnx_cgmq.settings.target import BlockSize, check_dynamic, check_form
from onnx_cgmq.settings.toml import problems

if TYPE_CHECKING:  # the command line shows its help without loading NumPy
    from onnx_cgmq.contract.given_plan import GivenPlan, PlanLike


class Direction(str, Enum):
    """What the importance of a gate is made of (docs/concepts.md, "Directions")."""

    GRADIENT = "gradient"
    GRADIENT_MAGNITUDE = "gradient_magnitude"
    GRADIENT_TIMES_MAGNITUDE = "gradient_times_magnitude"
    FISHER = "fisher"


class Effort(str, Enum):
    """How much time a run takes to learn.

    Rounding, biases and ranges are learned part by part with all of them, unless there is much
    labelled data to train on.

    FAST: A minute or two.
    NORMAL: Some minutes.
    BEST: Up to half an hour.
    """

    FAST = "fast"
    NORMAL = "normal"
    BEST = "best"


class PlanUse(str, Enum):
    """What a run makes of a plan that it is given.

    FIX: The widths stay, and ranges start from those of the plan; the bound is checked, and the run
        learns rounding, biases and ranges.
    START: Gates and ranges start from those of the plan, and then move as ever.
    """

    FIX = "fix"
    START = "start"


def _read_plan(plan: PlanLike | None) -> GivenPlan | None:
    from onnx_cgmq.contract.given_plan import given_plan

    return given_plan(plan)


class Config(BaseModel):
    """Settings of a run; the defaults suit every model.

    Settings that the user does not give come from the target. The target must allow those that the
    user gives.

    Attributes:
        target: What the model is made for: the name of a built-in target, the path of a TOML file,
            or a :class:`~onnx_cgmq.settings.Target` (docs/targets.md).
        form: How the model is written (docs/concepts.md, "What is written"). ``qonnx`` and
            ``tensorrt`` have no zero points, so activations that can be negative get symmetric
            grids; ``tensorrt`` has INT8 only, so all others get them too.
        runtime: The versions of onnxruntime that are to run the written file, such as
            ``onnxruntime>=1.22``; ``None`` stands for the installed version. The file gets the
            opset and the types that the oldest of these versions takes.
        compact: Shorten all names in the written file that callers do not need. By default the
            names of the float model stay, as far as they take 3 % of the file or 5 KB.
        granularity: One gate per tensor, channel or element, for weights and biases.
        activation_granularity: The granularity of activations; ``None`` follows ``granularity`` if
            the target allows it.
        weight_ranges: ``channel`` gives a weight with one gate a range for each channel. ``block``
            gives one for each block of neighbours in a channel, if MatMul or Gemm multiply it as
            their second factor and whole blocks are summed over; else for each channel.
        block_size: Elements in a block: 16, 32, 64, 128 or 256.
        equalize: Move factors of channels between operators before quantizers are put in
            (:func:`~onnx_cgmq.preparation.equalize.equalize`), if a weight has one gate and a range
            for each channel, and an activation one gate.
        exact_steps: Round steps up to 8 bits (:func:`~onnx_cgmq.gating.exact.exact_ranges`),
            so that float kernels and integer kernels compute the same codes in every runtime.
        dynamic_activations: Find the ranges of activations at run time, over the whole tensor.
            Only matrix products of an activation and a weight read these; the activations of
            other nodes stay float. They have 8 bits, and only the form ``ort`` has them.
        widths: The widths that gates may select, ascending.
        activation_widths: The widths for activations; ``None`` takes those of ``widths`` that the
            target allows.
        bias_widths: The widths for biases; ``None`` as for activations.
        prune: Allow width 0 for weights with ``channel`` or ``element`` gates.
        input_width: Fixed width of the graph inputs; ``None`` gives them gates like any activation.
        keep_float: Names of tensors and nodes, patterns (``head/*``) and operator types that stay
            float. An exact name overrides a pattern, a pattern overrides an operator type, and all
            of them override the other settings. A name that matches nothing is an error. Biases,
            and activations that only carried quantizers are for, are chosen by exact names only.
        fix: Fixed widths, by names as in ``keep_float``.
        widths_for: Widths to select from, by names as in ``keep_float``.
        plan: Widths and ranges to begin with: the path of a plan (``NAME.plan.json``), of AIMET's
            encodings or of onnxruntime's ``TensorQuantOverrides`` in JSON; or a plan. Encodings of
            other tools are for the channels of the model as it is, so none are equalized with them.
        plan_use: Whether the widths of the plan are fixed, or only to start from.
        shapes: Shapes of inputs, for one sample, with which cost is counted. By default, sizes that
            the model leaves open are those of the data.
        direction: What the importance of a gate is made of.
        integer_kernels: Put quantizers wherever values flow from one integer kernel to the next,
            and narrow tensors at 16 or 32 bits to 8 when gates settle, so that onnxruntime runs
            them in integer kernels. ``False`` does neither.
        weight_kernels: Write the weights of matrix products with float activations so that
            onnxruntime multiplies them packed, in its kernel MatMulNBits, which by default rounds
            the activations to 8 bits in blocks. ``False`` lets it make floats of them when it
            loads the file. Only the form ``ort`` has such kernels.
        effort: How much time a run takes to learn (docs/concepts.md, "Effort").
        epochs: Train end to end for so many passes over the training data, after the stages of a
            run; ``None`` leaves that to the data.
        batch_size: Samples in a training step.
        learning_rate: Peak Adam learning rate of weights and biases; ``None`` takes it from the
            model's depth (:func:`~onnx_cgmq.learn.optimizer.default_learning_rate`).
        range_learning_rate: Peak Adam learning rate of the logarithm of ranges.
        validation_share: Share of the data that is held out to choose the best state.
        loss: ``auto`` (the float model as teacher, and labels and target values if the data has
            any), ``labels`` (labels and target values only), ``teacher`` (the float model only), or
            one of your own: ``package.module:function``, or a callable.
        device: Where the run computes: ``auto`` (a GPU of CUDA if there is one, else of Apple, else
            the CPU), ``cpu``, ``cuda``, ``cuda:1``, ``mps``. Files are verified on the CPU.
        seed: Seed of every random choice.
        time_limit: Seconds after which training stops with the best state that keeps the bound;
            ``None`` sets no limit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: Annotated[Target, BeforeValidator(load_target)] = load_target(DEFAULT_TARGET)
    form: Form = Form.ORT
    runtime: str | None = None
    compact: bool = False
    granularity: Granularity = Granularity.TENSOR
    activation_granularity: Granularity | None = None
    weight_ranges: Ranges = Ranges.CHANNEL
    block_size: BlockSize = 64
    equalize: bool = True
    exact_steps: bool = False
    dynamic_activations: bool = False
    widths: tuple[int, ...] = (2, 4, 8)
    activation_widths: tuple[int, ...] | None = None
    bias_widths: tuple[int, ...] | None = None
    prune: bool = False
    input_width: Literal[2, 4, 8, 16, 32] | None = None
    keep_float: tuple[str, ...] = ()
    fix: dict[str, int] = {}
    widths_for: dict[str, tuple[int, ...]] = {}
    plan: Annotated[Any, BeforeValidator(_read_plan)] = None
    plan_use: PlanUse = PlanUse.FIX
    shapes: dict[str, tuple[NonNegativeInt, ...]] = {}
    direction: Direction = Direction.FISHER
    integer_kernels: bool = True
    weight_kernels: bool = False
    effort: Effort = Effort.NORMAL
    epochs: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=128, ge=1)
    learning_rate: float | None = Field(default=None, gt=0)
    range_learning_rate: float = Field(default=3e-3, gt=0)
    validation_share: float = Field(default=0.1, ge=0, lt=1)
    loss: str | Callable[..., Any] = "auto"
    device: str = "auto"
    seed: int = Field(default=0, ge=0)
    time_limit: float | None = Field(default=None, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, settings: Any) -> Any:
        """Takes settings that are not given from the target."""
        if not isinstance(settings, Mapping):
            return settings
        target = load_target(settings.get("target", DEFAULT_TARGET))
        return {**settings, "target": target, **target.settings(settings)}

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        for ladder in (self.ladder, self.activation_ladder, self.bias_ladder):
            if ladder.prunes:
                raise ValueError("width 0 is chosen with prune=True, not in widths")
        self.target.check(
            widths=self.widths,
            activation_widths=self.activation_ladder.widths,
            granularity=self.granularity,
            activation_granularity=self.activations,
        )
        if self.prune and self.granularity is Granularity.TENSOR:
            raise ValueError(
                "prune=True with granularity 'tensor' would remove whole layers; "
                "choose granularity 'channel' or 'element'"
            )
        check_form(self.form, self.weight_ranges, weight_kernels=self.weight_kernels)
        if self.dynamic_activations:
            widths = self.activation_ladder.widths
            check_dynamic(self.form, widths, [self.activations], exact=self.exact_steps)
        if self.input_width is not None:
            self.target.check(activation_widths=(self.input_width,))
        for pattern, widths in self.choices:
            if 0 in widths:
                raise ValueError(f"{pattern!r}: width 0 is chosen with prune=True")
            Ladder(widths)
        return self

    @field_validator("device")
    @classmethod
    def _is_a_device(cls, device: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
            raise ValueError("it must be auto, cpu, cuda, cuda:0 (or another number) or mps")
        return device

    @classmethod
    def create(cls, **settings: Any) -> Config:
        """Makes a config, and reports problems as :class:`ConfigError`.

        Raises:
            ConfigError: A setting is unknown, out of range, or contradicts another.
        """
        try:
            return cls(**settings)
        except ValidationError as error:
            raise ConfigError(f"invalid settings: {problems(error)}") from error

    @property
    def choices(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Names or patterns and their widths, from ``keep_float``, ``fix`` and ``widths_for``."""
        return (
            *((pattern, (FLOAT_BITS,)) for pattern in self.keep_float),
            *((pattern, (width,)) for pattern, width in self.fix.items()),
            *self.widths_for.items(),
        )

    @property
    def ladder(self) -> Ladder:
        """The ladder of weights that can't be pruned."""
        return Ladder(self.widths)

    @property
    def activation_ladder(self) -> Ladder:
        """The ladder of activations."""
        return Ladder(self.activation_widths or self.widths)

    @property
    def bias_ladder(self) -> Ladder:
        """The ladder of biases."""
        return Ladder(self.bias_widths or self.widths)

    @property
    def weight_ladder(self) -> Ladder:
        """The ladder of weights, with width 0 if pruning is allowed."""
        return Ladder((0, *self.widths)) if self.prune else self.ladder

    @property
    def activations(self) -> Granularity:
        """The granularity of activations."""
        return self.activation_granularity or self.granularity

    @property
    def moves_factors(self) -> bool:
        """Whether channels are equalized.

        Factors that move cost a weight nothing only if each channel has a range of its own; an
        activation with a gate for each channel needs no factors, nor does one that is float.
        """
        if self.plan is not None and not self.plan.own:
            return False  # its ranges are those of the channels as they are
        one_gate = self.granularity is self.activations is Granularity.TENSOR
        rounds = bool(self.activation_ladder.quantized)
        return self.equalize and one_gate and rounds and self.weight_ranges is Ranges.CHANNEL

    @property
    def fixed_plan(self) -> GivenPlan | None:
        """The plan whose widths are fixed, if there is one."""
        fixed: GivenPlan | None = self.plan if self.plan_use is PlanUse.FIX else None
        return fixed

    @property
    def signed_grid(self) -> GridForm:
        """The grid of activations that can be negative.

        The forms ``qonnx`` and ``tensorrt`` have symmetric grids, because they have no zero point.
        """
        symmetric = self.form in (Form.QONNX, Form.TENSORRT)
        return GridForm.SYMMETRIC if symmetric else GridForm.AFFINE

    @property
    def unsigned_grid(self) -> GridForm:
        """The grid of activations that can't be negative; ``tensorrt`` has no unsigned codes."""
        return GridForm.SYMMETRIC if self.form is Form.TENSORRT else GridForm.UNSIGNED


class Settings(TypedDict, total=False):
    """The fields of :class:`Config` as keyword arguments, for editors and type checkers."""

    target: TargetLike
    form: Form | str
    runtime: str | None
    compact: bool
    granularity: Granularity | str
    activation_granularity: Granularity | str | None
    weight_ranges: Ranges | str
    block_size: int
    equalize: bool
    exact_steps: bool
    dynamic_activations: bool
    widths: Sequence[int]
    activation_widths: Sequence[int] | None
    bias_widths: Sequence[int] | None
    prune: bool
    input_width: int | None
    keep_float: Sequence[str]
    fix: Mapping[str, int]
    widths_for: Mapping[str, Sequence[int]]
    plan: PlanLike | None
    plan_use: PlanUse | str
    shapes: Mapping[str, Sequence[int]]
    direction: Direction | str
    integer_kernels: bool
    weight_kernels: bool
    effort: Effort | str
    epochs: int | None
    batch_size: int
    learning_rate: float | None
    range_learning_rate: float
    validation_share: float
    loss: str | Callable[..., Any]
    device: str
    seed: int
    time_limit: float | None
