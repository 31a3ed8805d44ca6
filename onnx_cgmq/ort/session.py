"""Running models in onnxruntime on the CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from onnx_cgmq.contract.form import Form, written_form
from onnx_cgmq.data.samples import Batch, Samples
from onnx_cgmq.errors import ModelError, one_line
from onnx_cgmq.graph.files.load import ModelLike, load_model
from onnx_cgmq.graph.qonnx import define_quant, is_quant
from onnx_cgmq.ort.versions import Runtime

if TYPE_CHECKING:
    import onnxruntime as ort

    Session: TypeAlias = ort.InferenceSession

Outputs = dict[str, npt.NDArray[Any]]


class LogLevel(IntEnum):
    """What onnxruntime prints of its own accord: errors, or nothing but fatal ones."""

    ERRORS = 3
    SILENT = 4


def new_session(
    source: str | bytes,
    *,
    threads: int | None = None,
    optimize: bool = True,
    log_level: LogLevel = LogLevel.ERRORS,
    optimized_model: Path | None = None,
    entries: Mapping[str, str] | None = None,
) -> Session:
    """A session on the CPU provider: the one place of the package that makes sessions.

    Args:
        source: Path, or content of an ONNX file.
        threads: Threads within an operator; ``None`` leaves it to onnxruntime.
        optimize: All graph optimizations (onnxruntime's default), or none of them.
        log_level: What onnxruntime prints.
        optimized_model: Where onnxruntime saves the graph that it runs, if anywhere.
        entries: Further entries of the session's configuration.

    Raises:
        Exception: Whatever onnxruntime raises; its errors have no common base.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = int(log_level)
    if threads is not None:
        options.intra_op_num_threads = threads
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if optimized_model is not None:
        options.optimized_model_filepath = str(optimized_model)
    for key, value in (entries or {}).items():
        options.add_session_config_entry(key, value)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def open_session(model: ModelLike, *, threads: int | None = None, optimize: bool = True) -> Session:
    """A session on the CPU provider.

    Args:
        model: Path, ``onnx.ModelProto`` or ``onnx_ir.Model``.
        threads: Threads within an operator; ``None`` leaves it to onnxruntime.
        optimize: All graph optimizations (onnxruntime's default), or none of them.

    Raises:
        ModelError: onnxruntime can't load the model.
    """
    source, label = _source(model)
    try:
        return new_session(source, threads=threads, optimize=optimize)
    except Exception as error:  # onnxruntime's errors have no common base
        raise ModelError(
            f"onnxruntime {Runtime.installed().version} can't load {label}: "
            f"{one_line(error)}{_advice(model)}"
        ) from error


def open_written(model: ModelLike) -> Session:
    """A session for a model of any form, which computes what the model says.

    ``native`` runs without graph optimizations, which don't know integer kernels of its types, and
    so does ``qonnx``, whose ``Quant`` nodes run as the standard operators that they stand for.

    Args:
        model: As for :func:`open_session`.

    Raises:
        ModelError: The model can't be read, or onnxruntime can't load it.
    """
    graph = load_model(model)
    if any(is_quant(node) for node in graph.graph.all_nodes()):
        defined = graph.clone()
        define_quant(defined)
        return open_session(defined, optimize=False)
    return open_session(model, optimize=written_form(graph) is not Form.NATIVE)


def run_batch(session: Session, batch: Batch) -> Outputs:
    """Outputs by name for one batch, without the entries that only fill it up.

    Raises:
        ModelError: onnxruntime fails to run the model.
    """
    names = [output.name for output in session.get_outputs()]
    try:
        arrays = session.run(names, batch.inputs)
    except Exception as error:  # onnxruntime's errors have no common base
        raise ModelError(f"onnxruntime can't run the model: {one_line(error)}") from error
    return {name: counted(array, batch) for name, array in zip(names, arrays, strict=True)}


def run_onnxruntime(
    model: ModelLike,
    samples: Samples,
    batch_size: int = 256,
    *,
    threads: int | None = None,
    optimize: bool = True,
) -> Outputs:
    """Outputs of a model for all samples, joined along the batch axis.

    Args:
        model: Path, ``onnx.ModelProto`` or ``onnx_ir.Model``.
        samples: What to run it on.
        batch_size: Samples at a time.
        threads: See :func:`open_session`.
        optimize: See :func:`open_session`.

    Raises:
        ModelError: onnxruntime can't load or run the model.
    """
    session = open_session(model, threads=threads, optimize=optimize)
    parts: Iterator[Outputs] = (run_batch(session, batch) for batch in samples.batches(batch_size))
    outputs = list(parts)
    return {name: np.concatenate([part[name] for part in outputs]) for name in outputs[0]}


def counted(array: npt.NDArray[Any], batch: Batch) -> npt.NDArray[Any]:
    """The entries of an output that belong to samples asked for."""
    full = array.ndim > 0 and len(array) == len(batch.indices)
    return array[: batch.size] if full else np.atleast_1d(array)


def _advice(model: ModelLike) -> str:
    """What to do about a model in a form that is not for onnxruntime."""
    try:
        form = written_form(load_model(model))
    except ModelError:
        return ""
    if form in (None, Form.ORT):
        return ""
    return f"; it is in the form {form.value!r} for other flows: write it in the form 'ort' instead"


def _source(model: ModelLike) -> tuple[str | bytes, str]:
    if isinstance(model, (str, os.PathLike)):
        if not Path(model).is_file():
            raise ModelError(f"{os.fspath(model)}: no such file; check the path of the ONNX file")
        return os.fspath(model), os.fspath(model)
    try:
        if isinstance(model, onnx.ModelProto):
            return model.SerializeToString(), "the model"
        copy = model.clone()
        ir.external_data.load_to_model(copy)
        return ir.serde.serialize_model(copy).SerializeToString(), "the model"
    except Exception as error:  # protobuf's error for more than 2 GiB differs between versions
        raise ModelError(
            f"the model can't be handed to onnxruntime in memory: {one_line(error)}; "
            "save it and give its path"
        ) from error
