"""Feeds broken model files to onnx-cgmq: each must end in a CgmqError or in a right result.

Valid models (small networks, and the standard's own node cases) are mutated by
``mutations.py``. Every file is prepared, gets gates, is mirrored, run and written back, in a
process with bounded memory that is ended if it takes too long. What the mirror computes, and the
written file in onnxruntime, must be what onnxruntime makes of the broken file.

Results are kept as one JSON line per case; a run that was interrupted goes on where it stopped.

    python -m tools.fuzz.models --cases 10000 --output docs/benchmarks/fuzz.md
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch

import onnx_cgmq as cgmq
from onnx_cgmq.errors import CgmqError
from onnx_cgmq.graph.files.load import load_model, save_model
from onnx_cgmq.mirror.core.dtypes import TORCH_DTYPES
from onnx_cgmq.preparation.prepare import prepare
from tools import ROOT
from tools.fetch.backend_cases import SET_ASIDE_OPERATORS
from tools.fuzz.mutations import mutate
from tools.fuzz.seeds import seed_models

_MEMORY = 4 << 30  # bytes that a process may take beyond its imports
_SECONDS = 60.0  # for one file, on a machine that may be busy
_LARGEST_INPUT = 1 << 16  # elements of an input to run a model on
_BAD = ("exception", "crash", "hang", "wrong")

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Outcome:
    """How a case ended.

    Attributes:
        case: Its number, from which all else follows.
        seed: The model that was mutated.
        mutations: What was done to it.
        result: ``refused``, ``right``, ``unchecked`` (it ran, but onnxruntime does not), or one of
            ``exception``, ``crash``, ``hang``, ``wrong``.
        stage: How far it came.
        detail: Error class, and the message of what should not be.
        seconds: Processor time.
    """

    case: int
    seed: str
    mutations: str
    result: str
    stage: str
    detail: str
    seconds: float


def broken_file(case: int, seeds: dict[str, bytes]) -> tuple[str, str, bytes]:
    """Seed, mutations and content of a case."""
    rng = random.Random(case)
    seed = rng.choice(list(seeds))
    mutations, content = mutate(seeds[seed], rng)
    return seed, mutations, content


def examine(path: Path, report: Connection) -> tuple[str, str]:
    """Takes a file through everything.

    Args:
        path: The file.
        report: Gets the name of every stage as it begins.

    Returns:
        Result and detail.
    """
    try:
        report.send("mirror")
        mirror = cgmq.Mirror(path)
    except CgmqError as error:
        mirror_error = type(error).__name__
        mirror = None
    deployed = None
    try:
        report.send("prepare")
        prepared = prepare(path)
        report.send("insert gates")
        # Nothing is calibrated.
        gated = cgmq.insert_gates(prepared, target="generic", integer_kernels=False)
        report.send("mirror of gates")
        learner = cgmq.Mirror(gated)
        report.send("plan")
        plan = learner.plan()
        report.send("write back")
        deployed = path.with_name("deployed.onnx")
        save_model(cgmq.write_back(gated, plan), deployed)
    except CgmqError as error:
        if mirror is None:
            return "refused", type(error).__name__
        deployed = None
    if mirror is None and deployed is None:
        return "refused", mirror_error
    return _compare(path, mirror, deployed, report)


def _compare(
    path: Path, mirror: cgmq.Mirror | None, deployed: Path | None, report: Connection
) -> tuple[str, str]:
    graph = load_model(path).graph
    inputs = _inputs(graph)
    if inputs is None:
        return "unchecked", "inputs too large or of other types"
    if any(node.op_type in SET_ASIDE_OPERATORS for node in graph.all_nodes()):
        return "unchecked", "random outputs"
    results: dict[str, Arrays] = {}
    if mirror is not None:
        report.send("run")
        try:
            with torch.no_grad():
                tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
                outputs = mirror(tensors)
            results["mirror"] = {
                name: value.detach().numpy()
                for name, value in outputs.items()
                if _comparable(value)
            }
        except CgmqError:
            pass
    report.send("referee")
    expected = _onnxruntime(path, inputs)
    if expected is None:
        return "unchecked", "onnxruntime refuses it"
    if deployed is not None:
        results["written file"] = _onnxruntime(deployed, inputs) or {}
        if not results["written file"]:
            return "wrong", "onnxruntime runs the model but not the written file"
    for what, found in results.items():
        for name, array in found.items():
            if not _close(array, expected[name]):
                return "wrong", f"output {name!r} of the {what}"
    return ("right", "") if results else ("refused", "ModelError")


def _comparable(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype is not torch.bfloat16


def _inputs(graph: ir.Graph) -> Arrays | None:
    """Values for every input; unknown sizes are 2."""
    rng = np.random.default_rng(0)
    made = {}
    for value in graph.inputs:
        if str(value.name) in graph.initializers:
            continue
        if value.shape is None or value.dtype is None or value.dtype not in TORCH_DTYPES:
            return None
        shape = [size if isinstance(size, int) else 2 for size in value.shape]
        if any(size < 0 for size in shape) or np.prod(shape, dtype=float) > _LARGEST_INPUT:
            return None
        dtype = value.dtype.numpy()
        if value.dtype.bitwidth < 8 or value.dtype is ir.DataType.BFLOAT16:
            return None
        values = rng.uniform(-1, 3, shape)
        made[str(value.name)] = values.astype(dtype)
    return made


def _onnxruntime(path: Path, inputs: Arrays) -> Arrays | None:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        wanted = {value.name for value in session.get_inputs()}
        given = {name: array for name, array in inputs.items() if name in wanted}
        return dict(zip(names, session.run(names, given), strict=True))
    except Exception:  # whatever it raises, it is no verdict
        return None


def _close(found: np.ndarray, expected: Any) -> bool:
    if not isinstance(expected, np.ndarray) or expected.dtype.kind not in "fiub":
        return True
    if found.shape != expected.shape:
        return False
    rtol, atol = (5e-2, 1e-2) if expected.dtype == np.float16 else (1e-2, 1e-4)
    a, b = found.astype(np.float64), expected.astype(np.float64)
    return bool(np.allclose(a, b, rtol=rtol, atol=atol, equal_nan=True))


def _work(cases: list[int], seeds: dict[str, bytes], report: Connection) -> None:
    """Examines cases in a process of its own."""
    torch.set_num_threads(1)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + _MEMORY, size + _MEMORY))
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            seed, _, content = broken_file(case, seeds)
            path.write_bytes(content)
            try:
                result, detail = examine(path, report)
                if result == "wrong":
                    path.write_bytes(seeds[seed])
                    if examine(path, report)[0] == "wrong":
                        result, detail = "unchecked", "onnxruntime differs on the valid model too"
            except Exception as error:
                result, detail = "exception", f"{type(error).__name__}: {error}"[:300]
        report.send((result, detail))


def run(cases: list[int], seeds: dict[str, bytes], results: Path) -> None:
    """Runs cases, and appends an outcome for each."""
    context = multiprocessing.get_context("fork")
    with results.open("a", encoding="utf-8") as file:
        while cases:
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(cases, seeds, sender))
            process.start()
            sender.close()
            while cases:
                outcome = _watch(cases[0], seeds, receiver, process.pid or 0)
                file.write(json.dumps(asdict(outcome)) + "\n")
                file.flush()
                cases = cases[1:]
                if outcome.result in ("crash", "hang"):
                    break
            process.kill()
            process.join()


def _watch(case: int, seeds: dict[str, bytes], receiver: Connection, pid: int) -> Outcome:
    """Follows one case to its end."""
    began, stage = time.monotonic(), "load"
    seconds = _processor_seconds(pid)
    result, detail = "hang", ""
    while receiver.poll(max(0.0, began + _SECONDS - time.monotonic())):
        try:
            message = receiver.recv()
        except EOFError:
            # Files that crash onnxruntime say nothing about this project.
            result = "unchecked" if stage == "referee" else "crash"
            break
        if isinstance(message, str):
            stage = message
        else:
            result, detail = message
            break
    seconds = _processor_seconds(pid) - seconds
    seed, mutations, _ = broken_file(case, seeds)
    return Outcome(case, seed, mutations, result, stage, detail, max(0.0, seconds))


def _processor_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / 100.0


def markdown(outcomes: list[Outcome]) -> str:
    """The table."""
    counts = Counter(outcome.result for outcome in outcomes)
    kinds = ("refused", "right", "unchecked", *_BAD)
    text = {
        "refused": "refused with a `CgmqError`",
        "right": "ran, and computes what onnxruntime computes",
        "unchecked": "ran or was written; onnxruntime gives no verdict",
        "exception": "another exception",
        "crash": "crash",
        "hang": f"more than {_SECONDS:.0f} s",
        "wrong": "differs from onnxruntime",
    }
    slowest = max(outcomes, key=lambda outcome: outcome.seconds)
    stages = Counter(outcome.stage for outcome in outcomes if outcome.result == "refused")
    lines = [
        "# Broken model files",
        "",
        f"{len(outcomes):,} files: small networks and the standard's node cases, each with one to",
        "three mutations (bits flipped, parts cut, repeated or overwritten; other element types,",
        "sizes, attributes, operators, versions; cycles, missing data, endless functions). Each",
        "is mirrored, run, prepared, gated, written back and run in onnxruntime, in a process that",
        f"may take {_MEMORY >> 30} GiB of address space beyond its imports.",
        "",
        "| how it ended | files |",
        "|---|---|",
        *(f"| {text[kind]} | {counts[kind]:,} |" for kind in kinds),
        "",
        f"Processor time of a file: mean {np.mean([o.seconds for o in outcomes]):.2f} s,",
        f"longest {slowest.seconds:.1f} s. Refused at: "
        + ", ".join(f"{stage} {count:,}" for stage, count in stages.most_common())
        + ".",
        "",
        "Made by `python -m tools.fuzz.models --output FILE`.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--case", type=int, help="only this one, in this process, with its errors")
    parser.add_argument("--networks", action="store_true", help="without the node cases")
    parser.add_argument("--results", type=Path, default=ROOT / "runs" / "fuzz.jsonl")
    parser.add_argument("--output", type=Path, help="Markdown file")
    options = parser.parse_args()
    seeds = seed_models(node_cases=not options.networks)
    if options.case is not None:
        seed, mutations, content = broken_file(options.case, seeds)
        print(f"{seed}: {mutations}")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(content)
            print(examine(path, multiprocessing.Pipe(duplex=False)[1]))
        return
    options.results.parent.mkdir(parents=True, exist_ok=True)
    done = {outcome.case for outcome in _read(options.results)}
    run([case for case in range(options.cases) if case not in done], seeds, options.results)
    outcomes = [outcome for outcome in _read(options.results) if outcome.case < options.cases]
    text = markdown(outcomes)
    print(text)
    for outcome in outcomes:
        if outcome.result in _BAD:
            print(json.dumps(asdict(outcome)))
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")
    sys.exit(any(outcome.result in _BAD for outcome in outcomes))


def _read(results: Path) -> list[Outcome]:
    if not results.is_file():
        return []
    lines = results.read_text(encoding="utf-8").splitlines()
    return sorted((Outcome(**json.loads(line)) for line in lines), key=lambda o: o.case)


if __name__ == "__main__":
    main()
