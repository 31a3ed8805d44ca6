"""curve(): how good a model is against what it costs, from one run."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from typing_extensions import Unpack

from onnx_cgmq.api.comparison import COMPARED, comparison
from onnx_cgmq.api.curve_bounds import curve_bounds
from onnx_cgmq.api.curve_points import Curve, CurvePoint
from onnx_cgmq.api.emitter import Progress, emitter
from onnx_cgmq.api.opened_model import OpenedModel, chosen_config, open_model
from onnx_cgmq.api.output import OutputFiles
from onnx_cgmq.api.points import (
    COMPLETE,
    STOPS,
    TIME_LIMIT,
    PointMaker,
    open_points,
    reason_of,
    shortened,
)
from onnx_cgmq.contract.events import Event, Finished, MetricsLog, Notice
from onnx_cgmq.contract.launch import Launch
from onnx_cgmq.contract.replace import replaced
from onnx_cgmq.contract.run_paths import plan_path
from onnx_cgmq.contract.stopped import Stopped
from onnx_cgmq.cost.bound import Bound, Bounds
from onnx_cgmq.errors import AgreementError, ConfigError, OutputError
from onnx_cgmq.graph.files.load import ModelLike, file_size, save_model
from onnx_cgmq.settings.config import Config, Settings

if TYPE_CHECKING:  # torch loads when a run starts, not on import
    from onnx_cgmq.learn.schedule import Schedule


_LEFT_OUT: Final = "points left out"


def curve(
    model: ModelLike,
    data: Any,
    bounds: Bounds | None = None,
    points: int = 6,
    *,
    output: str | os.PathLike[str] | None = None,
    compare: bool = False,
    validation: Any = None,
    config: Config | None = None,
    progress: Progress | None = None,
    log: str | os.PathLike[str] | None = None,
    **settings: Unpack[Settings],
) -> Curve:
    """Learns under several bounds in one run: quality against cost, with a model for each point.

    The model is prepared and calibrated once, and losses are measured once. Each point learns for a
    share of the training steps of :func:`~onnx_cgmq.quantize`: all together for those of a run and
    a half. A point that is worse than a cheaper one gets the model of that one.

    Args:
        model: A float ONNX model: path, ``onnx.ModelProto`` or ``onnx_ir.Model``.
        data: Training samples, as for :func:`~onnx_cgmq.quantize`; labels are optional.
        bounds: The bounds on one kind of cost, each that of a point. By default from all tensors at
            8 bits (usually ``"6.25%"``) to the smallest cost that is possible, evenly by the
            logarithm.
        points: How many points there are by default.
        output: A folder, which is made if need be: for each point a model and its plan, and
            ``curve.json``. ``None`` writes nothing.
        compare: Add points to compare with: uniform widths of 8/8, 4/8 and 4/4 bits of weights and
            activations, and onnxruntime's ``quantize_static``. They take further time.
        validation: Held-out samples; by default a share of ``data``.
        config: The settings, instead of ``settings``. A time limit is that of the whole curve.
        progress: Is called with the events of all points.
        log: A file that gets a JSON line for each event.
        **settings: Fields of :class:`~onnx_cgmq.settings.config.Config`.

    Returns:
        The curve. After Ctrl-C or at the time limit ``complete`` is ``False``, and it has the
        points that were done.

    Raises:
        ModelError: The model can't be read or has nothing to quantize, or it can't be told how well
            models agree with it.
        UnsupportedOperatorError: The mirror lacks operators of the model.
        DataError: The data can't be read or does not fit the model.
        BoundError: A bound can't be parsed or can't be kept, or they are on different costs.
        ConfigError: A setting is invalid.
        OutputError: The output can't be written.
        VerificationError: A written model breaks its bound, or none computes what was learned.
    """
    began = time.monotonic()
    config = chosen_config(config, settings)
    if points < 1:
        raise ConfigError(f"{points} points: give at least one")
    folder = None if output is None else _folder(Path(output))
    files = OutputFiles(log=None if log is None else Path(log))
    Launch.of_environment().check_alone("a curve")
    opened = open_model(
        model,
        data,
        bounds or "100%",
        validation=validation,
        config=config,
        files=files,
        show=progress,
    )
    limits = curve_bounds(opened.costs, bounds, points)
    paths = _paths(folder, model, limits, files, opened, compare=compare)
    notes: list[Event] = []
    emit = emitter(progress, None if log is None else MetricsLog(log), notes)
    for note in opened.notes:
        emit(Notice(note))
    maker = open_points(opened, emit, began)
    schedule = shortened(maker.run.schedule, len(limits))
    done: list[CurvePoint] = []
    compared: list[CurvePoint] = []
    reason = COMPLETE
    try:
        for point in _learned(maker, limits, schedule):
            done.append(_saved(point, paths.get(point.bound)))
        if compare:
            for point in comparison(maker, limits[0].kind, schedule):
                compared.append(_saved(point, paths.get(point.method)))
    except (KeyboardInterrupt, Stopped) as stop:
        if not done:
            raise
        reason = reason_of(stop)
    for index, note in _improve(done):
        emit(Notice(note))
        done[index] = _saved(done[index], paths.get(done[index].bound))
    assert maker.measure is not None  # a point was judged
    if reason == COMPLETE and len(done) < len(limits):
        reason = _LEFT_OUT
    complete = reason == COMPLETE
    emit(Finished(complete=complete, reason=reason))
    found = Curve(
        tuple(done),
        tuple(compared),
        maker.measure,
        limits[0].kind.value,
        done[0].float_agreement.samples,
        complete,
        reason,
        time.monotonic() - began,
        tuple(dict.fromkeys(event.message for event in notes if isinstance(event, Notice))),
    )
    if folder is not None:
        with replaced(folder / "curve.json") as part:
            part.write_text(found.to_json() + "\n", encoding="utf-8")
    return found


def _learned(
    maker: PointMaker, limits: Sequence[Bound], schedule: Schedule
) -> Iterator[CurvePoint]:
    """Yields the points that are done.

    One that was stopped is left out, but for the first: then there would be none. One whose model
    computes something else than what was learned is left out with a note.

    Raises:
        Stopped: Learning was stopped, or there is no time for a further point.
        AgreementError: No model computes what was learned.
    """
    count = 0
    for bound in limits:
        if count and maker.is_late:
            raise Stopped(TIME_LIMIT)
        try:
            point, reason = maker.point(bound, schedule)
        except AgreementError as error:
            if bound is limits[-1] and not count:
                raise
            maker.emit(Notice(f"there is no point for {bound.text}: {error}"))
            continue
        if not count or reason not in STOPS:
            yield point
            count += 1
        if reason in STOPS:
            raise Stopped(reason)


def _improve(points: list[CurvePoint]) -> Iterator[tuple[int, str]]:
    """Gives points that are worse than a cheaper one the model of that one, in place.

    Yields:
        The place of each such point, and a note.
    """
    for index in reversed(range(len(points) - 1)):
        point, cheaper = points[index], points[index + 1]
        if point.quality >= cheaper.quality:
            continue
        source = cheaper.taken_from or cheaper.bound
        points[index] = replace(
            cheaper,
            bound=point.bound,
            taken_from=source,
            file=None,
            bytes=None,
            seconds=point.seconds,
        )
        yield (
            index,
            f"the model under {point.bound} was worse on held-out data than that under {source}, "
            "which takes its place and keeps both bounds",
        )


def _folder(output: Path) -> Path:
    """Makes the folder of the output.

    Raises:
        OutputError: It can't be made.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"can't make the folder {output}: {error.strerror or error}; give another folder"
        ) from error
    return output


def _paths(
    folder: Path | None,
    model: ModelLike,
    limits: Sequence[Bound],
    files: OutputFiles,
    opened: OpenedModel,
    *,
    compare: bool,
) -> dict[str, Path]:
    """The file of each point by its name, all of which can be written.

    Raises:
        OutputError: One can't be, is one that is read, or two bounds would have one file.
    """
    if folder is None:
        return {}
    stem = Path(model).stem if isinstance(model, (str, os.PathLike)) else "model"
    names = [*(bound.text for bound in limits), *(COMPARED if compare else ())]
    paths = {name: folder / f"{stem}.{_file_text(name)}.onnx" for name in names}
    for path in paths.values():
        replace(OutputFiles.of_result(path), log=files.log).check(opened.read)
    if len(set(paths.values())) < len(names):
        raise OutputError(
            f"two of the bounds {', '.join(paths)} would have files of one name; write them in one "
            "unit"
        )
    return paths


def _file_text(name: str) -> str:
    """What of a name may stand in that of a file."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name.removesuffix("%")).strip("-")


def _saved(point: CurvePoint, path: Path | None) -> CurvePoint:
    """Writes the model of a point and its plan."""
    if path is None:
        return point
    save_model(point.model, path)
    if point.plan is not None:
        point.plan.save(plan_path(path))
    return replace(point, file=path, bytes=file_size(path))
