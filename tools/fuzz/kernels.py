"""Writes random plans of random networks: onnxruntime must load them, run them right, as predicted.

For every case a network is given gates, calibrated, given random widths and written. Even cases are
random operators (``graphs.py``), odd ones are transformers, MLPs and CNNs with an open or a fixed
batch (``architectures.py``). The tool checks that onnxruntime loads the file, that without
optimizations it computes what the mirror does, that with them it computes the same but for single
codes, and that every node runs in the kernel that was predicted.

    python -m tools.fuzz.kernels --cases 1000 --output docs/benchmarks/kernels.md
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import torch

import onnx_cgmq as cgmq
from onnx_cgmq.api.agreement import Agreement
from onnx_cgmq.contract.bits import Role
from onnx_cgmq.data import Batch, open_data
from onnx_cgmq.errors import CgmqError
from onnx_cgmq.gating.predicted_kernels import Kernel
from onnx_cgmq.graph.nodes import node_key
from onnx_cgmq.graph.operators import (
    computes_on_codes,
    mac_spec,
)
from onnx_cgmq.ort.executed import executed_operators
from onnx_cgmq.ort.session import open_session, run_batch, without_padding
from onnx_cgmq.writing.write_back import Written, write
from tools.fuzz.architectures import random_architecture
from tools.fuzz.graphs import random_network
from tools.fuzz.ties import differ_by_ties

_ALL = (2, 4, 8, 16, 32)
_BATCH = 48
BUT_FOR_TIES = "right, but for ties"
_LEAST_DECIBELS = 40  # of most samples: a code that flips in few of them is no difference


@dataclass(frozen=True)
class Outcome:
    """How a case ended.

    Attributes:
        case: Its number, from which all else follows.
        verdict: ``right``, :data:`BUT_FOR_TIES`, ``refused`` (with a reason, by this project, or
            because the float model can't run), ``wrong`` or ``crash``.
        problems: What is not as it should be.
        kernels: How many MAC nodes were predicted, and ran, in which kernel.
    """

    case: int
    verdict: str
    problems: Sequence[str] = ()
    kernels: Counter[tuple[str, str]] = field(default_factory=Counter)


def draw_widths(mirror: cgmq.Mirror, rng: np.random.Generator) -> None:
    """Sets every gate to a random width, mostly of at most 8 bits."""
    wide = rng.choice([0.0, 0.0, 0.2])
    for quantizer in mirror.quantizers.values():
        spec = quantizer.spec
        narrow = [width for width in spec.ladder.widths if width <= 8] or list(spec.ladder.widths)
        choice = spec.ladder.widths if rng.random() < wide else narrow
        if spec.role is Role.BIAS:
            choice = (spec.ladder.widths[-1],)
        quantizer.set_gate(quantizer.gate_for(rng.choice(choice, size=spec.gate_shape)))


def examine(case: int) -> Outcome:
    """Takes a case through everything."""
    model, data = random_architecture(case) if case % 2 else random_network(case)
    rng = np.random.default_rng(case)
    settings: dict[str, Any] = {
        "target": "generic",
        "granularity": str(rng.choice(["tensor", "channel", "channel", "element"])),
        "activation_granularity": str(rng.choice(["tensor", "tensor", "tensor", "channel"])),
        "widths": _ALL if rng.random() < 0.5 else _ALL[:3],
    }
    try:
        gated = cgmq.insert_gates(model, **settings)
        mirror = cgmq.Mirror(gated)
        draw_widths(mirror, rng)
        cgmq.calibrate(mirror, open_data(data, gated))
    except CgmqError as error:
        return Outcome(case, "refused", [str(error)])
    plan = mirror.plan()
    written = write(gated, plan, compact=False)
    try:
        problems, differs = _compare(cgmq.write_back(gated, plan), mirror, data)
        ties = bool(differs) and differ_by_ties(written.model, _batches(data, written.model))
    except Exception as error:  # whatever onnxruntime raises
        why = " ".join(str(error).split())[-200:]
        if not _runs(model, _batches(data, gated)):
            return Outcome(case, "refused", [f"the float model can't run: {why}"])
        return Outcome(case, "wrong", [f"does not run: {why}"])
    mistaken, kernels = _check(written)
    problems += mistaken if ties else [*differs, *mistaken]
    verdict = "wrong" if problems else BUT_FOR_TIES if ties else "right"
    return Outcome(case, verdict, problems, kernels)


def _runs(model: onnx.ModelProto, batches: Iterator[Batch]) -> bool:
    """Says whether a float model runs at all; some random networks fix the batch in a Reshape."""
    try:
        run_batch(open_session(model, threads=1), next(batches))
    except CgmqError:
        return False
    return True


def _batches(data: dict[str, np.ndarray], model: ir.Model) -> Iterator[Batch]:
    """Lists the batches of all samples."""
    return iter(open_data(data, model).batches(_BATCH))


def examine_apart(case: int) -> Outcome:
    """The same in a process of its own, which onnxruntime may crash."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(examine(case)))
    process.start()
    sender.close()
    try:
        outcome: Outcome = receiver.recv()
    except EOFError:
        outcome = Outcome(case, "crash")
    process.join()
    return outcome


def _compare(
    written: ir.Model, mirror: cgmq.Mirror, data: dict[str, np.ndarray]
) -> tuple[list[str], list[str]]:
    """What differs: the file without optimizations from the mirror, and with them from without."""
    from_mirror, from_plain = Agreement(), Agreement()
    plain, optimized = (open_session(written, threads=1, optimize=on) for on in (False, True))
    for batch in _batches(data, written):
        with torch.no_grad():
            tensors = {name: torch.from_numpy(array) for name, array in batch.inputs.items()}
            wanted = {n: without_padding(v.numpy(), batch) for n, v in mirror(tensors).items()}
        found = run_batch(plain, batch)
        from_mirror.add(found, wanted, batch)
        from_plain.add(run_batch(optimized, batch), found, batch)
    return _far_apart("plain from mirror", from_mirror), _far_apart(
        "optimized from plain", from_plain
    )


def _far_apart(what: str, agreement: Agreement) -> list[str]:
    decibels = agreement.decibels
    far = decibels is not None and decibels < _LEAST_DECIBELS
    return [f"{what}: only {decibels:.1f} dB"] if far else []


def _check(
    written: Written,
) -> tuple[list[str], Counter[tuple[str, str]]]:
    """Nodes that do not run in the kernel that was predicted, and MAC nodes by kernel."""
    executed = executed_operators(written.model)
    nodes = {str(node.name): node for node in written.model.graph.all_nodes()}
    differences, kernels = [], Counter[tuple[str, str]]()
    for name, choice in written.kernels.items():
        node = nodes.get(name)
        if node is None:
            continue
        runs = executed.get(node_key(node))
        kernel = Kernel.INTEGER if runs and computes_on_codes(runs) else Kernel.FLOAT
        expected = choice.kernel.value if choice.kernel else ""
        if mac_spec(node) is not None:
            kernels[expected, kernel.value if runs else "can't be told"] += 1
        if runs is not None and kernel is not choice.kernel:
            differences.append(
                f"{node.op_type} {name}: predicted {expected} ({choice.reason}), runs as {runs}"
            )
    return differences, kernels


def _table(outcomes: Sequence[Outcome], first: int) -> str:
    verdicts = Counter(outcome.verdict for outcome in outcomes)
    kernels = sum((outcome.kernels for outcome in outcomes), Counter[tuple[str, str]]())
    lines = [
        "# Kernels: prediction, file and onnxruntime on random networks",
        "",
        f"Made by `python -m tools.fuzz.kernels --first {first} --cases {len(outcomes)}` with "
        f"onnxruntime {ort.__version__}; do not edit. Half of the networks are up to ten "
        "random operators, half are transformers, MLPs and CNNs with an open or a fixed batch; "
        "widths (2 to 32 bits) and granularities are random. A network is right if onnxruntime "
        "loads the file, computes without optimizations what the mirror does, computes the same "
        "with optimizations except for single codes, and runs every node in the kernel that was "
        f"predicted. It is *{BUT_FOR_TIES}*, if more than single codes differ, but each is a code "
        "nearest to the value that it stands for, given the codes before it: values halfway "
        "between two codes are rounded to either. With 2 bits, these may be many of the sums that "
        "QLinearAdd computes.",
        "",
        "| verdict | networks |",
        "|---|---|",
        *(f"| {verdict} | {count:,} |" for verdict, count in verdicts.most_common()),
        "",
        "| MAC nodes predicted | that ran | nodes |",
        "|---|---|---|",
        *(f"| {a} | {b} | {count:,} |" for (a, b), count in sorted(kernels.items())),
        "",
    ]
    problems = [f"* {o.case}: {o.verdict}: {p}" for o in outcomes for p in o.problems or [""]]
    problems = [line for line in problems if ": right" not in line]
    return "\n".join([*lines, *problems, ""] if problems else lines)


def main() -> None:
    """Runs cases and shows what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--output", type=Path, help="Markdown file to write.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    outcomes = []
    for case in range(arguments.first, arguments.first + arguments.cases):
        outcomes.append(examine_apart(case))
        for problem in outcomes[-1].problems or [""]:
            if outcomes[-1].verdict not in ("right", BUT_FOR_TIES):
                print(f"{case}: {outcomes[-1].verdict}: {problem}", flush=True)
        if arguments.output is not None:  # true of what is done so far
            text = _table(outcomes, arguments.first)
            arguments.output.write_text(text, encoding="utf-8")
    print(_table(outcomes, arguments.first))


if __name__ == "__main__":
    main()
