"""Opens a run: from a float model and data as users have them to a gated model and samples."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import onnx_ir as ir

from onnx_cgmq.api.costly import leave_out_costly
from onnx_cgmq.api.emitter import Progress
from onnx_cgmq.api.given import fit_plan
from onnx_cgmq.api.input_notes import input_notes
from onnx_cgmq.api.output import OutputFiles, data_files
from onnx_cgmq.contract.events import StageStarted
from onnx_cgmq.contract.form import Form
from onnx_cgmq.cost.bound import Bounds
from onnx_cgmq.cost.float_partners import float_partner_notes, unbounded_tables
from onnx_cgmq.cost.model import CostModel
from onnx_cgmq.cost.notes import cost_notes
from onnx_cgmq.data.source import Samples, open_data
from onnx_cgmq.errors import ConfigError
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.gating.uneven_weights import uneven_weights
from onnx_cgmq.graph.files.load import ModelLike, external_files, load_model
from onnx_cgmq.graph.input_shapes import open_inputs
from onnx_cgmq.ort.lookups import check_lookups
from onnx_cgmq.preparation.equalize import equalize_in_place
from onnx_cgmq.preparation.prepare import prepare
from onnx_cgmq.preparation.unknown_ranks import find_ranks
from onnx_cgmq.settings import load_target
from onnx_cgmq.settings.config import Config

_MODEL: Final = "the float model"
_EXTERNAL: Final = "external data of the float model"


@dataclass(frozen=True)
class OpenedModel:
    """A model with quantizers put in, and the samples to learn and to judge on.

    Attributes:
        source: The float model as the user gave it.
        float_model: The prepared float model.
        gated: The gated model that was made of it.
        costs: What widths cost.
        train: The samples to learn on.
        held_out: The samples by which states are judged.
        config: The settings, with the shapes that the data have and what was left out.
        notes: What the user should know before learning starts.
        read: The files that were read, by what they are; none of them may be overwritten.
        float_bytes: Bytes of the float model's files; ``None`` if it was not given as a file.
    """

    source: ModelLike
    float_model: ir.Model
    gated: ir.Model
    costs: CostModel
    train: Samples
    held_out: Samples
    config: Config
    notes: tuple[str, ...]
    read: Mapping[str, Collection[Path]]
    float_bytes: int | None

    @property
    def for_onnxruntime(self) -> bool:
        """Whether stock onnxruntime is to run the written files."""
        return self.config.form is Form.ORT


def open_model(
    model: ModelLike,
    data: Any,
    bound: Bounds,
    *,
    validation: Any,
    config: Config,
    files: OutputFiles,
    show: Progress | None,
) -> OpenedModel:
    """Prepares a float model, puts quantizers in, and reads the data.

    Args:
        model: As for :func:`~onnx_cgmq.api.pipeline.quantize`, like all other arguments.
        data: The samples.
        bound: The bounds; what is put in depends on their kinds.
        validation: Held-out samples; ``None`` holds out a share of the data.
        config: The settings.
        files: The files that will be written, which are checked before there is any work to lose.
        show: Is called when a stage begins, if given.
    """
    _check_device(config)
    show = show or (lambda event: None)
    show(StageStarted("read the model"))
    loaded = load_model(model)
    read = _sources(model, loaded, data, validation)
    files.check(read)
    float_bytes = _file_bytes(read)
    show(StageStarted("prepare"))
    float_model = prepare(loaded, runtime=config.runtime)
    files.check_space(_weight_bytes(float_model))
    show(StageStarted("read the data"))
    samples = open_data(data, float_model)
    check_lookups(float_model, samples)
    config = _with_shapes_of_data(samples, float_model, config)
    find_ranks(float_model, (batch.inputs for batch in islice(samples.batches(1), 2)))
    train, held_out = _split(samples, validation, float_model, config)
    if config.moves_factors:
        show(StageStarted("equalize"))
        equalize_in_place(float_model, train)
    show(StageStarted("place quantizers"))
    gated = insert_gates(float_model, config)
    gated, config, unused = fit_plan(float_model, gated, config)
    gated, config, left_out = leave_out_costly(float_model, gated, config, bound, train)
    show(StageStarted("look at the data"))
    costs = CostModel.of(gated, load_target(config.target).cost)
    kernels = config.form is Form.ORT and config.integer_kernels
    notes = (
        *dict.fromkeys((*samples.notes, *held_out.notes)),
        *cost_notes(gated, kernels=kernels),
        *float_partner_notes(costs, bound),
        *unbounded_tables(costs, bound),
        *uneven_weights(gated),
        *input_notes(float_model, samples),
        *filter(None, [left_out]),
        *unused,
    )
    return OpenedModel(
        model, float_model, gated, costs, train, held_out, config, notes, read, float_bytes
    )


def chosen_config(config: Config | None, settings: Any) -> Config:
    """Returns the settings of a run, which are given in one of two ways.

    Raises:
        ConfigError: They are given in both, or a setting is invalid.
    """
    if config is not None and settings:
        raise ConfigError(f"give config or settings, not both; settings: {', '.join(settings)}")
    return config or Config.create(**settings)


def _check_device(config: Config) -> None:
    """Refuses a device that is not there, before there is any work to lose.

    Raises:
        ConfigError: There is no such device.
    """
    if config.device not in ("auto", "cpu"):  # these are always there, and torch loads slowly
        from onnx_cgmq.mirror.devices import chosen_device

        chosen_device(config.device)


def _split(
    samples: Samples, validation: Any, model: ir.Model, config: Config
) -> tuple[Samples, Samples]:
    """Returns training samples and held-out samples."""
    if validation is None:
        return samples.split(config.validation_share, config.seed)
    held_out = open_data(validation, model)
    check_lookups(model, held_out)
    return samples, held_out


def _with_shapes_of_data(samples: Samples, model: ir.Model, config: Config) -> Config:
    """Adds shapes of the first sample to the settings, for inputs whose shape is not given.

    Cost is then counted with these shapes.
    """
    missing = [name for name in open_inputs(model) if name not in config.shapes]
    if not missing:
        return config
    first = next(samples.batches(1)).inputs
    shapes = {name: tuple(first[name].shape) for name in missing}
    return config.model_copy(update={"shapes": {**shapes, **config.shapes}})


def _sources(
    model: ModelLike, loaded: ir.Model, data: Any, validation: Any
) -> dict[str, Collection[Path]]:
    """Returns the files that a run reads, by what they are."""
    return {
        _MODEL: [Path(model)] if isinstance(model, (str, os.PathLike)) else [],
        _EXTERNAL: external_files(loaded),
        "the data": data_files(data),
        "the validation data": data_files(validation),
    }


def _file_bytes(read: Mapping[str, Collection[Path]]) -> int | None:
    """Returns the bytes of the float model's files; ``None`` if it was not given as a file."""
    if not read[_MODEL]:
        return None
    return sum(path.stat().st_size for path in (*read[_MODEL], *read[_EXTERNAL]))


def _weight_bytes(model: ir.Model) -> int:
    tensors = (value.const_value for value in model.graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)
