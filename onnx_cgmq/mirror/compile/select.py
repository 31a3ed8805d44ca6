"""Chooses the handler of a node, and collects the nodes that have none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import onnx_ir as ir

import onnx_cgmq.mirror.ops  # noqa: F401  (registers the operators)
from onnx_cgmq.contract.identifiers import GATED_DOMAIN
from onnx_cgmq.errors import UnsupportedOperatorError
from onnx_cgmq.graph.standard import same_operator
from onnx_cgmq.mirror.compile.known_strings import unknown_text
from onnx_cgmq.mirror.core.dtypes import CAST_ONLY, is_supported
from onnx_cgmq.mirror.core.registry import OLDEST_OPSET, Context, Operator, find_operator

NO_OPERATOR = "no such operator in the mirror"


def is_quantizer(node: ir.Node) -> bool:
    """Whether a node is a gated quantizer."""
    return node.domain == GATED_DOMAIN and node.op_type.startswith("GatedQDQ")


def domain_of(node: ir.Node) -> str:
    """The domain of a node, ``""`` for the standard one."""
    return "" if node.domain == "ai.onnx" else node.domain


def choose_operator(
    domain: str, context: Context, types: Iterable[ir.DataType | None]
) -> Operator | str:
    """Chooses the handler of a node.

    Args:
        domain: Domain of the node.
        context: What is known about the node.
        types: Types of its inputs and outputs; ``None`` where they are not known.

    Returns:
        The handler, or the reason why there is none that runs the node exactly.
    """
    too_old = domain == "" and context.opset < OLDEST_OPSET
    if too_old and not same_operator(context.op_type, context.opset, OLDEST_OPSET):
        return f"opsets before {OLDEST_OPSET} must be upgraded first, see prepare()"
    operator = find_operator(domain, context.op_type, context.opset)
    if operator is None:
        return NO_OPERATOR
    # Cast may read any of CAST_ONLY; its handler checks the type of its output.
    read = CAST_ONLY if domain == "" and context.op_type == "Cast" else ()
    known = (dtype for dtype in types if dtype is not None and dtype not in read)
    unfit = sorted({dtype.name for dtype in known if not is_supported(dtype)})
    if unfit:
        return f"no tensors of type {', '.join(unfit)}"
    if domain == "" and (unknown := unknown_text(context)) is not None:
        return unknown
    try:
        reason = operator.check(context) if operator.check is not None else None
    except (LookupError, TypeError, ValueError) as error:
        reason = f"an attribute has a value that is not allowed ({error})"
    return operator if reason is None else reason


class Problems:
    """Collects the nodes that can't be run, so that one message can name all of them."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], list[str]] = defaultdict(list)

    def add(self, domain: str, context: Context, reason: str) -> None:
        """Adds a node, and the reason why it can't be run."""
        where = f"{domain or 'ai.onnx'} opset {context.opset}"
        self._found[f"{context.op_type} ({where})", reason].append(context.node)

    def raise_if_any(self) -> None:
        """Ends the compilation if a node can't be run.

        Raises:
            UnsupportedOperatorError: There are such nodes; the message names all of them.
        """
        if not self._found:
            return
        lines = [
            f"{operator}: {reason}; node{'s' if len(nodes) > 1 else ''} {', '.join(nodes)}"
            for (operator, reason), nodes in sorted(self._found.items())
        ]
        raise UnsupportedOperatorError(
            "the model has operators that can't be run differentiably:\n  "
            + "\n  ".join(lines)
            + "\nReplace them in the model, or register a handler with "
            "onnx_cgmq.mirror.core.registry.onnx_op."
        )
