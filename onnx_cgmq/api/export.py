"""Exports widths and ranges for other tools: encodings of AIMET, overrides of onnxruntime."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final

import onnx
import onnx_ir as ir

from onnx_cgmq.api.output import OutputFiles
from onnx_cgmq.contract.aimet import to_aimet
from onnx_cgmq.contract.encodings import Encodings, encodings_of, listed
from onnx_cgmq.contract.plan import BitPlan
from onnx_cgmq.contract.replace import replaced
from onnx_cgmq.contract.tensor_overrides import to_overrides
from onnx_cgmq.errors import ConfigError, ModelError, OutputError
from onnx_cgmq.graph.files.load import save_model
from onnx_cgmq.inspection.unquantized import unquantized

_MODEL: Final = ".onnx"


class EncodingFormat(str, Enum):
    """The JSON formats in which other tools take widths and ranges.

    AIMET: Encodings of AIMET, version 1.0.0, as ``load_encodings_to_sim`` reads them.
    ORT_OVERRIDES: ``TensorQuantOverrides`` of onnxruntime's ``quantize_static``.
    """

    AIMET = "aimet"
    ORT_OVERRIDES = "ort-overrides"


@dataclass(frozen=True)
class Exported:
    """Widths and ranges in the format of another tool.

    Attributes:
        text: The JSON text.
        model: The float model to which it belongs, with the learned weights, if they were exported
            from a model; a plan has none.
        notes: What the text does not say.
    """

    text: str
    model: ir.Model | None = field(repr=False)
    notes: tuple[str, ...]

    def save(self, path: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Writes the text, and beside it the float model, with the suffix ``.onnx``.

        Returns:
            The files.

        Raises:
            OutputError: A file can't be written.
        """
        files = exported_files(Path(path), with_model=self.model is not None)
        OutputFiles(*reversed(files) if self.model is not None else (None, *files)).check({})
        with replaced(path) as part:
            part.write_text(self.text + "\n", encoding="utf-8")
        if self.model is not None:
            save_model(self.model, files[1])
        return files


def exported_files(path: Path, *, with_model: bool) -> tuple[Path, ...]:
    """The files that :meth:`Exported.save` writes: the text, then the float model, if any.

    Raises:
        OutputError: The text has the suffix of the float model.
    """
    if path.suffix == _MODEL:
        raise OutputError(
            f"{path} is to be JSON, and ends in {_MODEL} as the float model beside it does; give "
            "it another suffix, such as .json or .encodings"
        )
    return (path, path.with_suffix(_MODEL)) if with_model else (path,)


def export_encodings(
    source: str | os.PathLike[str] | onnx.ModelProto | ir.Model | BitPlan,
    as_format: EncodingFormat | str,
) -> Exported:
    """Exports widths and ranges for another tool.

    Args:
        source: A quantized model: its path, ``onnx.ModelProto``, or ``onnx_ir.Model`` (such as
            ``result.model``); it is taken apart into a float model with the learned weights, and
            encodings. Or a plan: a :class:`BitPlan`, or the path of its JSON file; its encodings
            are for the tensors of the float model.
        as_format: The format.

    Returns:
        The JSON text, the float model if there is one, and notes on what the text does not say.

    Raises:
        ConfigError: There is no such format, or it can't say the widths of a tensor.
        ModelError: The source can't be read, or is not quantized.
    """
    try:
        chosen = EncodingFormat(as_format)
    except ValueError as error:
        formats = ", ".join(item.value for item in EncodingFormat)
        raise ConfigError(f"there is no format {as_format!r}; choose {formats}") from error
    try:
        encodings, model, notes = _encodings(source)
        if chosen is EncodingFormat.AIMET:
            return Exported(to_aimet(encodings), model, notes)
        text, more = to_overrides(encodings)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return Exported(text, model, (*notes, *more))


def _encodings(
    source: str | os.PathLike[str] | onnx.ModelProto | ir.Model | BitPlan,
) -> tuple[Encodings, ir.Model | None, tuple[str, ...]]:
    if isinstance(source, (str, os.PathLike)) and Path(source).suffix == ".json":
        source = _plan(Path(source))
    if isinstance(source, BitPlan):
        encodings, notes = encodings_of(source)
        dynamic = [name for name, e in encodings.items() if not e.is_float and e.step is None]
        if dynamic:
            raise ValueError(
                f"{listed(dynamic)}: the range is found at run time, which no other format can "
                "say; quantize with a target whose activations have fixed ranges"
            )
        return encodings, None, notes
    parts = unquantized(source)
    return parts.encodings, parts.model, parts.notes


def _plan(path: Path) -> BitPlan:
    try:
        return BitPlan.load(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(f"plan {path} can't be read: {reason}") from error
