"""Writes random plans of random networks: onnxruntime must load them, run them right, as predicted.

For every case (``fuzz_graphs.py``) a network is given gates, calibrated, given random widths and
written. Checked are that onnxruntime loads the file, that without optimizations it computes what
the mirror does, that with them it computes the same but for single codes, and that every node runs
in the kernel that was predicted.

    python tools/fuzz_kernels.py --cases 1000 --output docs/benchmarks/kernels.md
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(Path(__file__).parent)]

from fuzz_graphs import random_network  # noqa: E402

import onnx_cgmq as cgmq  # noqa: E402
from onnx_cgmq.bits import Role  # noqa: E402
from onnx_cgmq.data import open_data  # noqa: E402
from onnx_cgmq.errors import CgmqError  # noqa: E402
from onnx_cgmq.execution import executed_operators, is_integer_kernel  # noqa: E402
from onnx_cgmq.graph.kernels import Kernel, KernelChoice  # noqa: E402
from onnx_cgmq.graph.lower.gated import GatedTensors  # noqa: E402
from onnx_cgmq.graph.lower.ort import ort_kernels  # noqa: E402
from onnx_cgmq.graph.opspec import node_key  # noqa: E402
from onnx_cgmq.runtime import open_session  # noqa: E402

_ALL = (2, 4, 8, 16, 32)
_SEVERAL_CODES = 0.25
_FEW = 0.02


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


def examine(case: int) -> tuple[str, list[str]]:
    """The verdict on a case, and what is wrong."""
    model, data = random_network(case)
    rng = np.random.default_rng(case)
    config = {
        "granularity": str(rng.choice(["tensor", "channel", "channel", "element"])),
        "activation_granularity": str(rng.choice(["tensor", "tensor", "tensor", "channel"])),
        "widths": _ALL if rng.random() < 0.5 else _ALL[:3],
    }
    try:
        gated = cgmq.insert_gates(model, **config)
        mirror = cgmq.Mirror(gated)
        draw_widths(mirror, rng)
        cgmq.calibrate(mirror, open_data(data, gated))
    except CgmqError as error:
        return "refused", [str(error)]
    plan = mirror.plan()
    written = cgmq.write_back(gated, plan)
    with torch.no_grad():
        tensors = {name: torch.from_numpy(array) for name, array in data.items()}
        wanted = {name: value.numpy() for name, value in mirror(tensors).items()}
    problems = []
    results = {}
    for optimize in (False, True):
        try:
            session = open_session(written, threads=1, optimize=optimize)
            results[optimize] = dict(zip(wanted, session.run(list(wanted), data), strict=True))
        except Exception as error:  # whatever onnxruntime raises
            how = "optimized" if optimize else "plain"
            return "wrong", [f"{how}: does not run: {' '.join(str(error).split())[-200:]}"]
    for name, expected in wanted.items():
        for optimize, reference in ((False, expected), (True, results[False][name])):
            found = results[optimize][name]
            share, mean = _difference(found, reference)
            if mean > _FEW and share > _SEVERAL_CODES:
                what = "optimized from plain" if optimize else "plain from mirror"
                problems.append(f"{what}: {name} differs in {share:.0%}, by {mean:.3g} on average")
    predicted = ort_kernels(GatedTensors(gated, plan))
    problems += _surprises(predicted, cgmq.write_back(gated, plan, compact=False))
    return ("wrong" if problems else "right"), problems


def examine_apart(case: int) -> tuple[str, list[str]]:
    """The same in a process of its own, which onnxruntime may crash."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(examine(case)))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        return "crash", [f"process ended with {process.exitcode}"]
    finally:
        process.join()


def _difference(found: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """Share of entries that differ, and mean difference, relative to the spread of all."""
    scale = max(float(expected.std()), 1e-6)
    difference = np.abs(found - expected) / scale
    return float((difference > 1e-3).mean()), float(difference.mean())


def _surprises(predicted: dict[ir.Node, KernelChoice], written: ir.Model) -> list[str]:
    """Nodes that do not run in the kernel that was predicted."""
    executed = executed_operators(written)
    keys = {node.name: node_key(node) for node in written.graph.all_nodes()}
    surprises = []
    for node, choice in predicted.items():
        runs = executed.get(keys.get(node.name, ""))
        if runs is None or is_integer_kernel(runs) == (choice.kernel is Kernel.INTEGER):
            continue
        surprises.append(
            f"{node.op_type} {node.name}: predicted {choice.kernel.value} ({choice.reason}), "
            f"runs as {runs}"
        )
    return surprises


def main() -> None:
    """Runs cases and shows what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    verdicts: Counter[str] = Counter()
    for case in range(arguments.first, arguments.first + arguments.cases):
        verdict, problems = examine_apart(case)
        verdicts[verdict] += 1
        for problem in problems:
            print(f"{case}: {verdict}: {problem}", flush=True)
    print(dict(verdicts))


if __name__ == "__main__":
    main()
