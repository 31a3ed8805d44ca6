"""Reads damaged quantized files: each is read, or refused with a ModelError, in bounded memory.

    python -m tools.fuzz.inspect --count 500

Prints what failed, with the seed that makes it again, and how many files were read and refused.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import resource
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import onnx
import onnx_ir as ir

import onnx_cgmq as cgmq
from tools.fuzz.mutations import mutate

_SECONDS = 60.0
_MEBIBYTES = 1024

NETWORK = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[batch, 3, 8, 8] x, float[4, 3, 3, 3] k, float[4, 4] w) => (float[batch, 4] y) {
    c = Conv <pads = [1, 1, 1, 1]> (x, k)
    r = Relu (c)
    p = GlobalAveragePool (r)
    f = Flatten (p)
    y = Gemm (f, w)
}"""


_OF_ANY_WIDTH = [form for form in cgmq.Form if form is not cgmq.Form.TENSORRT]


def quantized_files() -> list[bytes]:
    """A small network in all forms and granularities, with plans and live sets inside."""
    rng = random.Random(0)
    proto = onnx.parser.parse_model(NETWORK)
    for value in list(proto.graph.input)[1:]:
        dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        numbers = [rng.gauss(0, 1) for _ in range(math.prod(dims))]
        proto.graph.initializer.append(onnx.helper.make_tensor(value.name, 1, dims, numbers))
        proto.graph.input.remove(value)
    files = []
    for granularity in ("tensor", "channel", "element"):
        gated = cgmq.insert_gates(proto, target="generic", granularity=granularity)
        guide = cgmq.Guide(cgmq.Mirror(gated), bound=("20%", "activations:120%"), steps=1)
        guide.settle()
        for form in _OF_ANY_WIDTH:
            written = cgmq.write_back(gated, guide.plan(), form=form)
            files.append(ir.to_proto(written).SerializeToString())
    return files


def damage(content: bytes, rng: random.Random) -> bytes:
    """One to three mutations of the file, or of what its metadata say."""
    if rng.random() < 0.5:
        return mutate(content, rng)[1]
    model = onnx.load_model_from_string(content)
    entry = rng.choice(model.metadata_props)
    try:
        fields = json.loads(entry.value)
    except ValueError:
        entry.value = entry.value[: rng.randrange(len(entry.value) + 1)] + rng.choice(
            ("", "{", "~")
        )
    else:
        for _ in range(rng.randint(1, 3)):
            fields = _changed(fields, rng)
        entry.value = json.dumps(fields)
    return bytes(model.SerializeToString())


def _changed(fields: Any, rng: random.Random) -> Any:
    """JSON with one value replaced, dropped or repeated."""
    if isinstance(fields, dict) and fields and rng.random() < 0.9:
        key = rng.choice(list(fields))
        if rng.random() < 0.1:
            return {other: value for other, value in fields.items() if other != key}
        return {**fields, key: _changed(fields[key], rng)}
    if isinstance(fields, list) and fields and rng.random() < 0.8:
        index = rng.randrange(len(fields))
        return [*fields[:index], _changed(fields[index], rng), *fields[index + rng.randrange(2) :]]
    odd: tuple[Any, ...] = (
        None,
        -1,
        0,
        3,
        300,
        2**70,
        1e308,
        float("nan"),
        float("inf"),
        "",
        "x",
        [],
        [[]],
        {},
        True,
    )
    return rng.choice(odd)


def check(content: bytes, read: Callable[[onnx.ModelProto], Any]) -> str:
    """What came of one file: ``read``, ``refused``, or what went wrong."""
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        read(onnx.load_model_from_string(content))
        outcome = "read"
    except cgmq.CgmqError:
        outcome = "refused"
    except Exception as error:
        if type(error).__name__ == "DecodeError":  # protobuf's own, before we see the model
            return "no message"
        return f"{type(error).__name__}: {error}"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
    if time.monotonic() - started > _SECONDS or grown > _MEBIBYTES:
        return f"{time.monotonic() - started:.0f} s, {grown} MiB"
    return outcome


def run(count: int, first: int = 0) -> Counter[str]:
    """Reads a number of damaged files; outcomes other than ``read`` and ``refused`` are printed."""
    files, outcomes = quantized_files(), Counter[str]()
    for seed in range(first, first + count):
        rng = random.Random(seed)
        outcome = check(damage(rng.choice(files), rng), cgmq.inspect)
        outcomes[outcome] += 1
        if outcome not in ("read", "refused", "no message"):
            print(f"seed {seed}: {outcome}", flush=True)
    return outcomes


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    for outcome, number in run(arguments.count, arguments.first).most_common():
        print(f"{number:6} {outcome}")
