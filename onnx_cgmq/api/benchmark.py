"""Times models in onnxruntime, side by side in interleaved rounds."""

from __future__ import annotations

import json
import math
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnx_cgmq.api.agreement import Agreement
from onnx_cgmq.api.random_inputs import Lengths, random_inputs
from onnx_cgmq.data import Samples, open_data
from onnx_cgmq.errors import ConfigError
from onnx_cgmq.graph.files.load import file_size, load_model
from onnx_cgmq.ort.lookups import check_lookups
from onnx_cgmq.ort.memory import peak_bytes
from onnx_cgmq.ort.session import Runnable, open_written, run_batch
from onnx_cgmq.ort.versions import Runtime

if TYPE_CHECKING:
    from onnx_cgmq.inspection.terminal import FittedTable
    from onnx_cgmq.ort.session import Session

Inputs = Mapping[str, npt.NDArray[Any]]
PathLike = str | os.PathLike[str]

_COMPARED = 1024  # most samples whose outputs are compared, up to a batch
_COMPARED_AT_ONCE = 64  # samples in such a batch


@dataclass(frozen=True)
class Timing:
    """The figures of one model.

    Attributes:
        model: Path of the model, as given.
        milliseconds: Median time of one call.
        low: First quartile of the time of one call, over rounds, in milliseconds.
        high: Third quartile, likewise.
        ratio: Median over rounds of this model's time as a share of the first model's; below 1 it
            is faster. Both times are from the same round, so that other work of the machine cancels
            out.
        file_bytes: Size of the file with its external data.
        peak_bytes: Most memory that loading and running the model took beyond Python with
            onnxruntime; ``None`` on systems other than Linux.
        same_class: Share of samples that have the same class as in the first model, if there is
            data and an output has class scores.
        max_difference: Largest absolute difference of an output value from the first model's, if
            there is data.
        accuracy: Share of samples that are classified right, if the data has labels.
    """

    model: str
    milliseconds: float
    low: float
    high: float
    ratio: float
    file_bytes: int
    peak_bytes: int | None
    same_class: float | None
    max_difference: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Benchmark:
    """The figures of all models. The others are compared with the first one.

    Attributes:
        timings: The figures of each model, in the order given.
        onnxruntime: The version of onnxruntime.
        threads: Number of threads within an operator.
        batch: Number of samples in a call.
        rounds: Number of interleaved rounds.
        random_inputs: Whether inputs were drawn at random, because there was no data.
        notes: Sentences on how data was read, and on models that stock onnxruntime does not run as
            they were run here.
    """

    timings: tuple[Timing, ...]
    onnxruntime: str
    threads: int
    batch: int
    rounds: int
    random_inputs: bool
    notes: tuple[str, ...] = ()

    def to_json(self, indent: int | None = 2) -> str:
        """Returns JSON text; with ``indent=None`` it is on one line."""
        return json.dumps(asdict(self), indent=indent)

    def table(self) -> FittedTable:
        """Returns a table for a terminal, with one line for each model."""
        from onnx_cgmq.inspection.terminal import Column, FittedTable, size_text

        table = FittedTable(
            Column("model", shortest=16),
            Column("ms", right=True),
            Column("quartiles", right=True, priority=3),
            Column("ratio", right=True),
            Column("file", right=True, priority=1),
            Column("peak memory", right=True, priority=4),
            Column("agreement", right=True),
            Column("accuracy", right=True, priority=2),
        )
        for timing in self.timings:
            table.add_row(
                timing.model,
                f"{timing.milliseconds:.3f}",
                f"{timing.low:.3f}-{timing.high:.3f}",
                f"{timing.ratio:.2f} x",
                size_text(timing.file_bytes),
                "?" if timing.peak_bytes is None else size_text(timing.peak_bytes),
                _agreement(timing),
                "" if timing.accuracy is None else f"{timing.accuracy:.2%}",
            )
        return table


def _agreement(timing: Timing) -> str:
    if timing.same_class is not None:
        return f"{timing.same_class:.2%} same class"
    return "" if timing.max_difference is None else f"max {timing.max_difference:.3g}"


def bench(
    models: Sequence[PathLike],
    data: Any = None,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    rows: int | None = None,
    past: int | None = None,
    batch: int = 1,
    threads: int = 1,
    rounds: int = 20,
    round_seconds: float = 0.05,
) -> Benchmark:
    """Times models side by side in onnxruntime, and compares their outputs with the first one's.

    Every round times each model in turn, and each round begins with another model. So a machine
    that slows down or speeds up affects all of them alike.

    Models run with all of onnxruntime's optimizations, or without any if their form is ``native``
    or ``qonnx``.

    Args:
        models: Paths of ONNX files with the same inputs. The others are compared with the first.
        data: Samples in any form that :func:`onnx_cgmq.quantize` takes. Without data, inputs are
            random and outputs are not compared.
        shapes: Shapes by input name, for one sample, where the model leaves sizes open and there
            is no data.
        rows: How many tokens a call reads, for inputs that leave a length open and whose shapes
            are not given: many for the prefill of a decoder, 1 for a step.
        past: How many tokens the cache of a decoder holds: the length of inputs whose names begin
            with ``past``. An input with ``mask`` in its name is as long as both.
        batch: Number of samples in a call; a batch size that the model fixes overrides it.
        threads: Number of threads within an operator.
        rounds: Number of interleaved rounds.
        round_seconds: Seconds that each model runs in a round; it makes at least one call.

    Returns:
        The figures of all models.

    Raises:
        ModelError: A model can't be read or run, or the models have different outputs.
        DataError: The data can't be read or does not fit the model; or there is no data and a size
            is open.
        ConfigError: A number is not positive, there is no model, or lengths do not fit it.
    """
    for name, number in (("batch", batch), ("threads", threads), ("rounds", rounds)):
        if number < 1:
            raise ConfigError(f"{name} {number}: it must be at least 1")
    if not models:
        raise ConfigError("no model to time; give at least one ONNX file")
    if data is not None and (rows is not None or past is not None):
        raise ConfigError("rows and past are for random inputs; the data have lengths of their own")
    paths = [Path(model) for model in models]
    first = load_model(paths[0])
    samples = None if data is None else open_data(data, first)
    if samples is None:
        inputs = random_inputs(first, shapes or {}, batch, Lengths(rows, past))
    else:
        check_lookups(first, samples)
        inputs = next(samples.batches(batch)).inputs
    sessions = [open_written(path, threads=threads) for path in paths]
    times = _rounds(sessions, inputs, rounds, round_seconds)
    agreements = [None if samples is None else _compare(sessions, samples, s) for s in sessions]
    timings = []
    for path, own, agreement in zip(paths, times, agreements, strict=True):
        low, median, high = _quartiles(own)
        timings.append(
            Timing(
                model=str(path),
                milliseconds=median * 1e3,
                low=low * 1e3,
                high=high * 1e3,
                ratio=statistics.median(a / b for a, b in zip(own, times[0], strict=True)),
                file_bytes=file_size(path),
                peak_bytes=peak_bytes(path, inputs, threads),
                same_class=None if agreement is None else agreement.same_class,
                max_difference=None if agreement is None else agreement.largest,
                accuracy=None if agreement is None else agreement.accuracy,
            )
        )
    return Benchmark(
        tuple(timings),
        str(Runtime.installed().version),
        threads,
        batch,
        rounds,
        random_inputs=samples is None,
        notes=(
            *(() if samples is None else samples.notes),
            *(f"{path}: {note}" for path in paths if (note := Runnable.of(path).note)),
        ),
    )


def _rounds(
    sessions: Sequence[Session], inputs: Inputs, rounds: int, round_seconds: float
) -> list[list[float]]:
    """Returns the seconds of a call, for every session and round."""
    feed = dict(inputs)
    calls = []
    for session in sessions:
        session.run(None, feed)  # the first call allocates memory
        once = min(_seconds(session, feed, 1) for _ in range(3))
        calls.append(max(1, math.ceil(round_seconds / max(once, 1e-9))))
    times: list[list[float]] = [[] for _ in sessions]
    for turn in range(rounds):
        for offset in range(len(sessions)):
            index = (turn + offset) % len(sessions)
            times[index].append(_seconds(sessions[index], feed, calls[index]))
    return times


def _seconds(session: Session, feed: dict[str, Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        session.run(None, feed)
    return (time.perf_counter() - start) / calls


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    low, median, high = np.percentile(values, (25, 50, 75))
    return float(low), float(median), float(high)


def _compare(sessions: Sequence[Session], samples: Samples, session: Session) -> Agreement:
    agreement = Agreement()
    for batch in samples.batches(_COMPARED_AT_ONCE):
        agreement.add(run_batch(session, batch), run_batch(sessions[0], batch), batch)
        if agreement.samples >= _COMPARED:
            break
    return agreement
