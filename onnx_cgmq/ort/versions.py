"""What versions of onnxruntime take, as ``tools/measure/runtime_features.py`` found it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import onnx_ir as ir
from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import Version

from onnx_cgmq.contract.identifiers import RUNTIME_KEY
from onnx_cgmq.errors import ConfigError, one_line

OPSETS: Final = {Version("1.20"): 21, Version("1.21"): 22, Version("1.24"): 25}
"""First versions that run quantizers of an opset in integer kernels, up to the newest opset that
models are written in. 1.23 loads opset 23, but fuses nothing in it."""

LATE_KERNELS: Final = {"LpNormalization": (22, Version("1.25"))}
"""Operators, the opset that changed them, and the first version that has a kernel for that."""

FIRST_VERSIONS: Final = {ir.DataType.INT4: Version("1.23"), ir.DataType.INT2: Version("1.24")}
"""First versions that fold the ``Cast`` of a weight and fuse what reads it."""

_OLDEST: Final = min(OPSETS)
_LOWER_ENDS: Final = (">=", "~=", "==", ">")
_NAME: Final = "onnxruntime"


@dataclass(frozen=True)
class Runtime:
    """The oldest onnxruntime that is to run a model.

    Attributes:
        version: Its version.
    """

    version: Version

    @classmethod
    def installed(cls) -> Runtime:
        """The one that is installed."""
        import onnxruntime as ort

        return cls(Version(ort.__version__))

    @classmethod
    def of(cls, model: ir.Model) -> Runtime:
        """The one that a model was prepared for."""
        text = model.metadata_props.get(RUNTIME_KEY)
        return cls.installed() if text is None else cls(Version(text))

    @classmethod
    def required(cls, text: str) -> Runtime:
        """The oldest one that meets a requirement, such as ``onnxruntime>=1.22``.

        Raises:
            ConfigError: It is no requirement for onnxruntime, no version meets it, the installed
                one does not (the written file could not be checked), or files can't be written
                for versions so old.
        """
        requirement = _parsed(text)
        installed = cls.installed()
        if not requirement.specifier.contains(installed.version, prereleases=True):
            raise ConfigError(
                f"runtime {text!r}: the installed onnxruntime {installed.version} is none of "
                "these versions, so the file could not be checked; install one that is"
            )
        oldest = min(_oldest(requirement), installed.version)
        if oldest < _OLDEST:
            raise ConfigError(
                f"runtime {text!r}: files can be written for onnxruntime {_OLDEST} and newer"
            )
        return cls(oldest)

    @cached_property
    def opset(self) -> int:
        """The newest opset in which it runs quantizers in integer kernels."""
        return max((o for first, o in OPSETS.items() if self.version >= first), default=21)

    def takes(self, data_type: ir.DataType) -> bool:
        """Whether weights may be stored in a type."""
        first = FIRST_VERSIONS.get(data_type)
        return first is None or self.version >= first

    def has_kernel(self, op_type: str, opset: int) -> bool:
        """Whether an operator that newer versions run in an opset has a kernel in this one."""
        changed, first = LATE_KERNELS.get(op_type, (opset + 1, self.version))
        return opset < changed or self.version >= first


def _parsed(text: str) -> Requirement:
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise ConfigError(
            f"runtime {text!r} is no requirement such as 'onnxruntime>=1.22': {one_line(error)}"
        ) from error
    if requirement.name.lower() != _NAME or requirement.url or requirement.marker:
        raise ConfigError(f"runtime {text!r}: only versions of {_NAME} can be chosen")
    return requirement


def _oldest(requirement: Requirement) -> Version:
    """The version that a requirement starts at, or else the oldest known one that meets it.

    ``>`` counts as ``>=``: what the version itself takes, later ones take too.
    """
    specifier = requirement.specifier
    ends = [part.version for part in specifier if part.operator in _LOWER_ENDS]
    if ends:
        return max(Version(end.removesuffix(".*")) for end in ends)
    known = sorted({*OPSETS, *FIRST_VERSIONS.values()})
    return next((v for v in known if specifier.contains(v)), known[-1])
