"""Stores the graphs of models without their weights, for tests that must not download anything.

Float constants of 16 elements or more lose their values, so that only type and shape are left; the
tests put random numbers there (``tests/support/packaged_models.py``). Metadata and texts are left
out.

    python -m tools.fetch.model_structures .cache/models/*.onnx --out tests/support/packaged_graphs
"""

from __future__ import annotations

import argparse
import lzma
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import numpy_helper

FEWEST = 16
"""Elements of a constant whose values are left out; smaller ones are limits, factors, sizes."""


def strip(model: onnx.ModelProto) -> None:
    """Removes the values of all large float constants, and what says nothing about the graph."""
    for tensor in constants(model.graph):
        array = numpy_helper.to_array(tensor)
        if array.dtype.kind == "f" and array.size >= FEWEST:
            for field in ("raw_data", "float_data", "int32_data", "double_data"):
                tensor.ClearField(field)
    model.ClearField("metadata_props")
    model.graph.ClearField("doc_string")


def constants(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Initializers and tensors in attributes, also in subgraphs."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from constants(body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True, help="folder")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for path in options.models:
        model = onnx.load(path)
        strip(model)
        content = lzma.compress(model.SerializeToString(deterministic=True), preset=9)
        (options.out / f"{path.name}.xz").write_bytes(content)
        print(f"{path.name}: {path.stat().st_size:,} bytes, {len(content):,} without weights")


if __name__ == "__main__":
    main()
