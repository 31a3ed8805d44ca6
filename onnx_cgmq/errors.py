"""Every error that onnx-cgmq raises on purpose.

Each message says what was wrong, where (node, operator, opset, file, value), and what to do next.
"""

from __future__ import annotations

from typing import Final

DAMAGE: Final = (
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
)
"""What reading text that a file holds may stumble over: the text is damaged then."""


class CgmqError(Exception):
    """The base of all errors that a user can act on."""

    exit_code: int = 1


class ModelError(CgmqError):
    """The ONNX model can't be read, is invalid, or has nothing to quantize."""

    exit_code = 3


class UnsupportedOperatorError(ModelError):
    """The model has operators that the mirror can't run; the message names all of them."""


class DataError(CgmqError):
    """The data can't be read or does not fit the model, or the user's code for it fails."""

    exit_code = 4


class BoundError(CgmqError):
    """The bound can't be parsed or can't be kept."""

    exit_code = 5


class OutputError(CgmqError):
    """The output can't be written."""

    exit_code = 6


class VerificationError(CgmqError):
    """The written model breaks its bound or differs from the mirror."""

    exit_code = 7


class ConfigError(CgmqError):
    """A setting is unknown, out of range, contradicts another, or is a loss that fails."""

    exit_code = 2


class AgreementError(VerificationError):
    """The written model computes something else than what it was made from."""

    exit_code = 8


def one_line(error: BaseException, limit: int = 500) -> str:
    """Puts the innermost cause of an error on one line.

    The errors that wrap it often repeat the whole graph.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:limit]
