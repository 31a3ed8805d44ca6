"""What versions of onnxruntime accept, as ``tools/measure/runtime_features.py`` found out."""

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
"""From each version on, the newest opset whose quantizers run in integer kernels, up to the newest
opset that models are written in. Version 1.23 loads opset 23, but has no integer kernels there."""

LATE_KERNELS: Final = {"LpNormalization": (22, Version("1.25"))}
"""Operators that changed in an opset, and the first version that has a kernel for the change."""

FIRST_VERSIONS: Final = {ir.DataType.INT4: Version("1.23"), ir.DataType.INT2: Version("1.24")}
"""For each type, the first version that folds the ``Cast`` of a weight and runs integer kernels on
the result. Types that are not here work in all versions."""

MULTIPLIES_PACKED: Final = Version("1.31")
"""The first version for which it was measured that matrix products of packed weights are right.
Earlier ones make floats of the weight at every run, or have other kernels."""

_OLDEST: Final = min(OPSETS)
_LOWER_ENDS: Final = (">=", "~=", "==", ">")
_NAME: Final = "onnxruntime"


@dataclass(frozen=True)
class Runtime:
    """The oldest onnxruntime that is to run a model.

    Attributes:
        version: The version of that onnxruntime.
    """

    version: Version

    @classmethod
    def installed(cls) -> Runtime:
        """Returns the onnxruntime that is installed."""
        import onnxruntime as ort

        return cls(Version(ort.__version__))

    @classmethod
    def of(cls, model: ir.Model) -> Runtime:
        """Returns the onnxruntime that a model was prepared for; by default the installed one."""
        text = model.metadata_props.get(RUNTIME_KEY)
        return cls.installed() if text is None else cls(Version(text))

    @classmethod
    def required(cls, text: str) -> Runtime:
        """Returns the oldest onnxruntime that meets a requirement, such as ``onnxruntime>=1.22``.

        Raises:
            ConfigError: The text is no requirement for onnxruntime, no version meets it, the
                installed one does not meet it (the written file could not be checked then), or
                files can't be written for versions so old.
        """
        requirement = _parsed(text)
        installed = cls.installed()
        if not requirement.specifier.contains(installed.version, prereleases=True):
            raise ConfigError(
                f"runtime {text!r}: the installed onnxruntime {installed.version} is none of "
                "these versions, so the written file could not be checked; install one of them"
            )
        oldest = min(_oldest(requirement), installed.version)
        if oldest < _OLDEST:
            raise ConfigError(
                f"runtime {text!r}: files can be written for onnxruntime {_OLDEST} and newer only; "
                "ask for one of these"
            )
        return cls(oldest)

    @cached_property
    def opset(self) -> int:
        """The newest opset whose quantizers this version runs in integer kernels."""
        return max((o for first, o in OPSETS.items() if self.version >= first), default=21)

    @property
    def multiplies_packed(self) -> bool:
        """Whether it has kernels that multiply packed weights, and these are known to be right."""
        return self.version >= MULTIPLIES_PACKED

    def takes(self, data_type: ir.DataType) -> bool:
        """Says whether weights may be stored in a type."""
        first = FIRST_VERSIONS.get(data_type)
        return first is None or self.version >= first

    def has_kernel(self, op_type: str, opset: int) -> bool:
        """Says whether this version has a kernel for an operator that newer versions run.

        Args:
            op_type: An operator for which the installed version has a kernel in the opset.
            opset: The opset.
        """
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
        raise ConfigError(
            f"runtime {text!r}: only versions of {_NAME} can be chosen, as in 'onnxruntime>=1.22'"
        )
    return requirement


def _oldest(requirement: Requirement) -> Version:
    """Returns the lowest version that a requirement names, or else the oldest known that meets it.

    ``>`` counts as ``>=``, because later versions accept everything that the named one accepts.
    """
    specifier = requirement.specifier
    ends = [part.version for part in specifier if part.operator in _LOWER_ENDS]
    if ends:
        return max(Version(end.removesuffix(".*")) for end in ends)
    known = sorted({*OPSETS, *FIRST_VERSIONS.values()})
    return next((v for v in known if specifier.contains(v)), known[-1])
