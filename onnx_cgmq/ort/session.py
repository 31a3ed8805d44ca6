"""Runs models in onnxruntime on the CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

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


NATIVE_NOTE: Final = (
    "the form 'native' is for compilers that take its types: stock onnxruntime needs its graph "
    "optimizations off for it (SessionOptions.graph_optimization_level = ORT_DISABLE_ALL), as "
    "verify and bench have them; with optimizations on it may refuse the file, or be slow"
)
"""What users of a file of the form ``native`` must know about onnxruntime."""

_TENSORRT_NOTE: Final = (
    "the form 'tensorrt' is for TensorRT, and was not run there: verify and bench run it in "
    "onnxruntime with graph optimizations off, as those change types in it"
)

_QONNX_NOTE: Final = (
    "the form 'qonnx' is for FPGA flows: stock onnxruntime has no Quant nodes; verify and bench "
    "run them as the standard operators by which they are defined, with graph optimizations off"
)


class LogLevel(IntEnum):
    """Which messages onnxruntime prints: ``ERRORS``, or ``SILENT`` for fatal errors only."""

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
    """Opens a session on the CPU provider. All sessions of this process are made here.

    Args:
        source: Path or content of an ONNX file.
        threads: Number of threads within an operator; ``None`` lets onnxruntime choose.
        optimize: ``True`` for all graph optimizations (onnxruntime's default), ``False`` for none.
        log_level: Which messages onnxruntime prints.
        optimized_model: File to which onnxruntime saves its optimized graph, if any.
        entries: Further entries of the session's configuration, by key.

    Raises:
        Exception: onnxruntime can't load the model; its errors have no common base.
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
    """Opens a session for a model on the CPU provider.

    Args:
        model: Path, ``onnx.ModelProto`` or ``onnx_ir.Model``.
        threads: Number of threads within an operator; ``None`` lets onnxruntime choose.
        optimize: ``True`` for all graph optimizations (onnxruntime's default), ``False`` for none.

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


def open_written(model: ModelLike, *, threads: int | None = None) -> Session:
    """Opens a session for a written model of any form, or for any other model.

    Args:
        model: Path, ``onnx.ModelProto`` or ``onnx_ir.Model``.
        threads: See :func:`open_session`.

    Raises:
        ModelError: The model can't be read, or onnxruntime can't load it.
    """
    runnable = Runnable.of(model)
    return open_session(runnable.model, threads=threads, optimize=runnable.optimize)


@dataclass(frozen=True)
class Runnable:
    """A model of any form as onnxruntime can run it.

    All forms but ``ort`` run without graph optimizations: onnxruntime has no integer kernels for
    the types of ``native``, its optimizations may give ``tensorrt`` types that do not fit, and
    ``Quant`` nodes of ``qonnx`` run as the standard operators by which they are defined.

    Attributes:
        model: The model; another one than that given if it has ``Quant`` nodes.
        optimize: Whether onnxruntime's optimizations are on.
        note: What users of the model must do in onnxruntime; empty for models of other forms.
    """

    model: ModelLike
    optimize: bool = True
    note: str = ""

    @classmethod
    def of(cls, model: ModelLike) -> Runnable:
        """Finds out how a model runs.

        Raises:
            ModelError: The model can't be read.
        """
        graph = load_model(model)
        if any(is_quant(node) for node in graph.graph.all_nodes()):
            defined = graph.clone()
            define_quant(defined)
            return cls(defined, optimize=False, note=_QONNX_NOTE)
        if written_form(graph) is Form.NATIVE:
            return cls(model, optimize=False, note=NATIVE_NOTE)
        if written_form(graph) is Form.TENSORRT:
            return cls(model, optimize=False, note=_TENSORRT_NOTE)
        return cls(model)


def run_batch(session: Session, batch: Batch) -> Outputs:
    """Runs a session on one batch and returns its outputs by name, without padding samples.

    Raises:
        ModelError: onnxruntime fails to run the model.
    """
    names = [output.name for output in session.get_outputs()]
    try:
        arrays = session.run(names, batch.inputs)
    except Exception as error:  # onnxruntime's errors have no common base
        raise ModelError(f"onnxruntime can't run the model: {one_line(error)}") from error
    return {name: without_padding(array, batch) for name, array in zip(names, arrays, strict=True)}


def run_onnxruntime(
    model: ModelLike,
    samples: Samples,
    batch_size: int = 256,
    *,
    threads: int | None = None,
    optimize: bool = True,
) -> Outputs:
    """Runs a model on all samples and returns its outputs by name, joined along the batch axis.

    Args:
        model: Path, ``onnx.ModelProto`` or ``onnx_ir.Model``.
        samples: The samples.
        batch_size: Number of samples in a call.
        threads: See :func:`open_session`.
        optimize: See :func:`open_session`.

    Raises:
        ModelError: onnxruntime can't load or run the model.
    """
    session = open_session(model, threads=threads, optimize=optimize)
    parts: Iterator[Outputs] = (run_batch(session, batch) for batch in samples.batches(batch_size))
    outputs = list(parts)
    return {name: np.concatenate([part[name] for part in outputs]) for name in outputs[0]}


def without_padding(array: npt.NDArray[Any], batch: Batch) -> npt.NDArray[Any]:
    """Returns an output without the entries of padding samples.

    If a model fixes its batch size, a batch may repeat its last sample until it is full.

    Args:
        array: An output for the batch.
        batch: The batch; its first ``batch.size`` samples count.

    Returns:
        The first ``batch.size`` rows of an output that has a row for each sample of the batch.
        Any other output is returned as it is, but a scalar gets an axis.
    """
    full = array.ndim > 0 and len(array) == len(batch.indices)
    return array[: batch.size] if full else np.atleast_1d(array)


def _advice(model: ModelLike) -> str:
    """Returns advice on a model that is written in a form for other runtimes, else nothing."""
    try:
        form = written_form(load_model(model))
    except ModelError:
        return ""
    if form in (None, Form.ORT):
        return ""
    if form is Form.NATIVE:
        return f"; {NATIVE_NOTE}"
    return f"; it is in the form {form.value!r} for other flows: write it in the form 'ort' instead"


def _source(model: ModelLike) -> tuple[str | bytes, str]:
    """Returns the path or the content of a model, and what messages call the model."""
    if isinstance(model, (str, os.PathLike)):
        if not os.path.isfile(model):
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
            f"the model can't be passed to onnxruntime in memory: {one_line(error)}; "
            "save it and give its path"
        ) from error
