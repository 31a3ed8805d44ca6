"""The user's choices for single tensors, nodes and operator types: which one a tensor gets."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import onnx_ir as ir

from onnx_cgmq.contract.bits import FLOAT_BITS, Ladder
from onnx_cgmq.errors import ConfigError

_WILDCARDS = "*?["


@dataclass(frozen=True, order=True)
class _Rank:
    """How closely a pattern names something; the smallest wins."""

    level: int
    """0: exact name of the tensor, 1: of a node, 2: pattern, 3: operator type."""
    wildness: int
    """Among patterns, those with more literal characters go first."""


@dataclass(frozen=True)
class Choices:
    """Widths that the user chose, by name or pattern.

    Attributes:
        given: Patterns and their widths (:attr:`onnx_cgmq.settings.config.Config.choices`).
        readers: The nodes that get quantizers for a tensor, by tensor name.
        biases: Names of biases, which only their exact names choose: they cost nothing.
    """

    given: Sequence[tuple[str, tuple[int, ...]]]
    readers: Mapping[str, Sequence[ir.Node]]
    biases: Collection[str]

    def ladder(self, tensor: str, *, activation: bool) -> Ladder | None:
        """The widths chosen for a tensor, or ``None``.

        Raises:
            ConfigError: Two choices that are equally close disagree.
        """
        nodes = self.readers.get(tensor, ())
        if activation:
            nodes = [node for node in nodes if not self.reads_float(node, tensor)]
        return self._closest(f"tensor '{tensor}'", tensor, nodes)

    def reads_float(self, node: ir.Node, activation: str) -> bool:
        """Whether a node stays float and so reads an activation as it is.

        The other readers of the activation may still read it quantized. A choice for the activation
        itself, by its exact name, goes first.

        Raises:
            ConfigError: Two choices that are equally close disagree.
        """
        if any(pattern == activation for pattern, _ in self.given):
            return False
        chosen = self._closest(f"node '{node.name}'", None, [node])
        return chosen is not None and chosen.widths == (FLOAT_BITS,)

    def check_used(self) -> None:
        """Checks that every pattern was of use.

        Raises:
            ConfigError: Some match nothing; the message has similar names.
        """
        nodes = [node for readers in self.readers.values() for node in readers]
        known = {*self.readers, *self.biases, *(str(node.name) for node in nodes)}
        known |= {node.op_type for node in nodes}
        for pattern, _ in self.given:
            if pattern in known or any(_matches(pattern, name) for name in known - {*self.biases}):
                continue
            similar = difflib.get_close_matches(pattern, sorted(known), n=3, cutoff=0.5)
            hint = f"did you mean {', '.join(similar)}?" if similar else "see the names in a report"
            raise ConfigError(
                f"'{pattern}' matches no tensor, node or operator that is quantized; {hint}"
            )

    def _closest(self, what: str, tensor: str | None, nodes: Sequence[ir.Node]) -> Ladder | None:
        ranked = [
            (rank, pattern, widths)
            for pattern, widths in self.given
            if (rank := _rank(pattern, tensor, nodes)) is not None
        ]
        if not ranked:
            return None
        first = min(rank for rank, _, _ in ranked)
        best = {widths: pattern for rank, pattern, widths in reversed(ranked) if rank == first}
        if len(best) > 1:
            chosen = ", ".join(f"'{p}' ({','.join(map(str, w))})" for w, p in best.items())
            raise ConfigError(
                f"{what} is chosen more than once: {chosen}; name the tensor itself to decide"
            )
        return Ladder(next(iter(best)))


def _rank(pattern: str, tensor: str | None, nodes: Sequence[ir.Node]) -> _Rank | None:
    if pattern == tensor:
        return _Rank(0, 0)
    if any(pattern == node.name for node in nodes):
        return _Rank(1, 0)
    if not nodes:  # a bias
        return None
    names = [str(node.name) for node in nodes] + ([] if tensor is None else [tensor])
    if any(_matches(pattern, name) for name in names):
        return _Rank(2, -sum(character not in _WILDCARDS for character in pattern))
    return _Rank(3, 0) if any(pattern == node.op_type for node in nodes) else None


def _matches(pattern: str, name: str) -> bool:
    return pattern == name or fnmatchcase(name, pattern)
