"""quantize(): all steps of the job, to be read from top to bottom."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import Unpack

from onnx_cgmq.api.drop import MaxDrop
from onnx_cgmq.api.drop_search import search
from onnx_cgmq.api.emitter import Progress, emitter
from onnx_cgmq.api.finish import finish
from onnx_cgmq.api.opened_model import chosen_config, open_model
from onnx_cgmq.api.output import OutputFiles
from onnx_cgmq.api.result import Result
from onnx_cgmq.contract.events import Event, Finished, MetricsLog, Notice, StageStarted
from onnx_cgmq.contract.launch import Launch
from onnx_cgmq.errors import ConfigError
from onnx_cgmq.graph.files.load import ModelLike
from onnx_cgmq.settings.config import Config, Settings

if TYPE_CHECKING:
    from onnx_cgmq.cost.bound import Bounds


def quantize(
    model: ModelLike,
    data: Any,
    bound: Bounds | None = None,
    *,
    max_drop: str | float | None = None,
    output: str | os.PathLike[str] | None = None,
    validation: Any = None,
    config: Config | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    log: str | os.PathLike[str] | None = None,
    report: str | os.PathLike[str] | None = None,
    **settings: Unpack[Settings],
) -> Result:
    """Learns widths, ranges and weights under a bound, and writes them into an ONNX model.

    Args:
        model: A float ONNX model: path, ``onnx.ModelProto`` or ``onnx_ir.Model``.
        data: Training samples; labels are optional (README, "Data").
        bound: ``"0.4%"`` of the float model's bit operations, ``"12.5MBOP"``, a size
            (``"200KB"``), peak bytes of activations (``"activations:64KB"``), a cost by the
            target's table (``"cost:25%"``); or several of these, which are all kept.
        max_drop: The most that the model may lose against the float model on held-out samples:
            ``"1%"`` of accuracy (with labels), ``"2%:class"``, classes that differ, or
            ``"snr:30dB"``, a signal-to-noise ratio of the outputs. The smallest cost is then
            searched at which it loses no more. With ``bound`` both are kept; if the drop can't be,
            the bound is, and ``result.drop.kept`` is ``False``.
        output: The file to write; plan and checkpoint are in the same folder. ``None`` writes
            nothing.
        validation: Held-out samples by which the best state is chosen; by default a share of
            ``data``.
        config: The settings of the run, instead of ``settings``.
        resume: Go on from the checkpoint of a run that was killed or interrupted; not with
            ``max_drop``, for a search has no checkpoint.
        progress: Is called with an :class:`~onnx_cgmq.contract.events.Event` at every training
            step and epoch, and when a stage begins.
        log: A file that gets a JSON line for each event; for training steps at most one a second.
        report: The file that the caller writes the HTML report to afterwards. It is only checked
            here, with the other files, before there is work to lose.
        **settings: Fields of :class:`~onnx_cgmq.settings.config.Config`.

    Returns:
        The result. After Ctrl-C or at the time limit ``result.complete`` is ``False``, and the
        result has the best model so far that keeps the bound.

    Raises:
        ModelError: The model can't be read or has nothing to quantize.
        UnsupportedOperatorError: The mirror lacks operators of the model.
        DataError: The data can't be read or does not fit the model.
        BoundError: The bound can't be parsed or can't be kept.
        ConfigError: A setting is invalid.
        OutputError: The output can't be written.
        VerificationError: The written model breaks the bound; no file is left behind then.
    """
    began = time.monotonic()
    config = chosen_config(config, settings)
    most = None if max_drop is None else MaxDrop.parse(max_drop)
    if bound is None and most is None:
        raise ConfigError("give a bound (--bound), or the most that may be lost (--max-drop)")
    if resume and most is not None:
        raise ConfigError(
            "a search for the largest drop can't be resumed: leave out resume (--resume), or give "
            "only the bound that its messages name"
        )
    if most is not None:
        Launch.of_environment().check_alone("a search for the largest drop")
    if not Launch.of_environment().leads:  # another process of the run reports and writes
        output = log = report = progress = None
    files = OutputFiles.of_run(output, log, None if report is None else Path(report))
    limit = "100%" if bound is None else bound
    opened = open_model(
        model, data, limit, validation=validation, config=config, files=files, show=progress
    )
    events: list[Event] = []
    emit = emitter(progress, None if log is None else MetricsLog(log, append=resume), events)
    for note in opened.notes:
        emit(Notice(note))

    from onnx_cgmq.learn import processes  # loads torch
    from onnx_cgmq.learn.opened_run import Data, OpenedRun
    from onnx_cgmq.learn.run import learn
    from onnx_cgmq.mirror.torch_state import plain_torch

    checkpoint = None
    if most is not None:
        result = search(opened, most, bound, emit, events, began)
    else:
        with plain_torch(opened.config.seed), processes.together():
            samples = Data(opened.train, opened.held_out)
            run = OpenedRun.open(opened.float_model, opened.gated, samples, opened.config, emit)
            learned = learn(run, limit, emit, checkpoint=files.checkpoint, resume=resume)
            checkpoint = learned.checkpoint
            result = finish(opened, learned, events, emit)
    if output is not None:
        emit(StageStarted("save"))
        result.save(output)
        if result.complete and checkpoint is not None:
            checkpoint.remove()
    emit(Finished(complete=result.complete, reason=result.outcome.reason))
    return result
