"""Finds the widths that the user chose for a tensor, by its name, its node or an operator type."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import onnx_ir as ir

from onnx_cgmq.contract.bits import FLOAT_BITS, Ladder
from onnx_cgmq.errors import ConfigError
from onnx_cgmq.graph.layouts import stored_weight
from onnx_cgmq.graph.mac_operators import OpSpec

_WILDCARDS = "*?["


@dataclass(frozen=True, order=True)
class _Rank:
    """How closely a pattern names a tensor; the smallest rank wins."""

    level: int
    """0: exact name of the tensor, 1: exact name of a node, 2: pattern, 3: operator type."""
    wildness: int
    """Minus the number of literal characters of a pattern, so that more literal patterns win."""


@dataclass(frozen=True)
class Choices:
    """Widths that the user chose, by name or pattern.

    Attributes:
        given: Patterns and their widths (:attr:`onnx_cgmq.settings.config.Config.choices`).
        readers: By tensor name, the nodes that read the tensor quantized.
        biases: Names of the biases. Only the exact name of a bias chooses its widths: a pattern is
            meant for what costs bit operations. The same goes for activations that no node reads
            quantized, and that only carried quantizers are for.
    """

    given: Sequence[tuple[str, tuple[int, ...]]]
    readers: Mapping[str, Sequence[ir.Node]]
    biases: Collection[str]

    @classmethod
    def of(
        cls,
        given: Sequence[tuple[str, tuple[int, ...]]],
        nodes: Sequence[tuple[ir.Node, OpSpec]],
    ) -> Choices:
        """Makes the choices for a graph.

        Args:
            given: Patterns and their widths.
            nodes: The nodes whose operands get quantizers, with their entries in the table of
                operators.
        """
        readers: dict[str, list[ir.Node]] = {}
        biases = set()
        for node, op in nodes:
            for _, value in op.operand_values(node):
                readers.setdefault(str(stored_weight(value)[0].name), []).append(node)
            bias = op.bias_value(node)
            if bias is not None and bias.const_value is not None:
                biases.add(str(bias.name))
        return cls(given, readers, biases)

    def ladder(self, tensor: str, *, activation: bool) -> Ladder | None:
        """Finds the widths that the user chose for a tensor.

        Args:
            tensor: Name of the tensor.
            activation: Whether the tensor is an activation. Nodes that read it as float then do not
                count.

        Returns:
            The widths, or ``None`` if the user chose none.

        Raises:
            ConfigError: Two choices that name the tensor equally closely disagree.
        """
        nodes = self.readers.get(tensor, ())
        if activation:
            nodes = [node for node in nodes if not self.reads_float(node, tensor)]
        return self._closest(f"tensor '{tensor}'", tensor, nodes)

    def reads_float(self, node: ir.Node, activation: str) -> bool:
        """Says whether the user keeps a node float, so that it reads an activation as float.

        Other nodes may still read the activation quantized. If the user chose widths for the
        activation by its exact name, these count instead.

        Args:
            node: The node.
            activation: Name of the activation that it reads.

        Raises:
            ConfigError: Two choices that name the node equally closely disagree.
        """
        if any(pattern == activation for pattern, _ in self.given):
            return False
        chosen = self._closest(f"node '{node.name}'", None, [node])
        return chosen is not None and chosen.widths == (FLOAT_BITS,)

    def check_used(self, carried: Collection[str]) -> None:
        """Checks that every pattern matches something.

        Args:
            carried: Names of the activations that only carried quantizers are for.

        Raises:
            ConfigError: A pattern matches nothing. The message lists similar names.
        """
        nodes = [node for readers in self.readers.values() for node in readers]
        exact = {*self.biases, *carried}
        known = {*self.readers, *(str(node.name) for node in nodes)}
        known |= {node.op_type for node in nodes}
        for pattern, _ in self.given:
            if pattern in exact or any(_matches(pattern, name) for name in known):
                continue
            similar = difflib.get_close_matches(pattern, sorted(known | exact), n=3, cutoff=0.5)
            names = "onnx-cgmq inspect MODEL --why '*' lists the names"
            hint = f"did you mean {', '.join(similar)}?" if similar else names
            raise ConfigError(
                f"'{pattern}' matches no tensor, node or operator that is quantized; {hint}"
            )

    def _closest(self, what: str, tensor: str | None, nodes: Sequence[ir.Node]) -> Ladder | None:
        """Returns the widths of the pattern that names a tensor or its nodes most closely.

        Args:
            what: What is chosen for, as the error names it.
            tensor: Name of the tensor, or ``None`` if only its nodes count.
            nodes: The nodes that read it.
        """
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
    """Ranks how closely a pattern names a tensor or its nodes; ``None`` if it names neither."""
    if pattern == tensor:
        return _Rank(0, 0)
    if any(pattern == node.name for node in nodes):
        return _Rank(1, 0)
    if not nodes:  # a bias, or an activation that only a carried quantizer is for
        return None
    names = [str(node.name) for node in nodes] + ([] if tensor is None else [tensor])
    if any(_matches(pattern, name) for name in names):
        return _Rank(2, -sum(character not in _WILDCARDS for character in pattern))
    return _Rank(3, 0) if any(pattern == node.op_type for node in nodes) else None


def _matches(pattern: str, name: str) -> bool:
    return pattern == name or fnmatchcase(name, pattern)
