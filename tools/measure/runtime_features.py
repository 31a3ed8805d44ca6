"""What each version of onnxruntime takes: opsets, and ways to write quantized tensors.

A convolution between quantizers is written in one way after the other. A version takes a way if
the file loads, computes what it does when written plainly, to the last bit, and fuses to the one
integer kernel with nothing left over. ``onnx_cgmq/ort/versions.py`` has the first versions;
the tool says where that differs.

    python -m tools.measure.runtime_features --output docs/benchmarks/runtimes/features.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper
from packaging.version import Version

from onnx_cgmq.ort.versions import Runtime
from tools.measure.other_runtimes import Interpreter, Job, Run, with_version

VERSIONS = (
    *(
        "1.19.2",
        "1.20.0",
        "1.20.1",
        "1.21.1",
        "1.22.1",
        "1.23.0",
        "1.23.2",
        "1.24.1",
        "1.24.4",
        "1.25.1",
    ),
    *("1.26.0", "1.27.0", "1.28.0", "1.29.0", "1.30.0", "1.31.1", "1.32.0"),
)
CHANNELS = 8
Change = Callable[[onnx.GraphProto], None]


def convolution(change: Change | None = None, opset: int = 21) -> onnx.ModelProto:
    """``QuantizeLinear, DequantizeLinear, Conv`` with 2-bit codes, per channel, and a bias."""
    rng = np.random.default_rng(0)
    arrays = {
        "s": np.float32(0.25),
        "z": np.uint8(3),
        "codes": rng.integers(-1, 2, (CHANNELS, 4, 3, 3)).astype(np.int8),
        "scale": np.tile([0.25, 0.4375], CHANNELS // 2).astype(np.float32),
        "zero": np.zeros(CHANNELS, np.int8),
        "bias": rng.integers(-99, 99, CHANNELS).astype(np.int32),
        "bias_scale": np.tile([0.0625, 0.109375], CHANNELS // 2).astype(np.float32),
        "bias_zero": np.zeros(CHANNELS, np.int32),
    }
    nodes: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("QuantizeLinear", ["x", "s", "z"], "xq", {}),
        ("DequantizeLinear", ["xq", "s", "z"], "xd", {}),
        ("DequantizeLinear", ["codes", "scale", "zero"], "w", {"axis": 0}),
        ("DequantizeLinear", ["bias", "bias_scale", "bias_zero"], "b", {"axis": 0}),
        ("Conv", ["xd", "w", "b"], "c", {}),
        ("QuantizeLinear", ["c", "s", "z"], "q", {}),
        ("DequantizeLinear", ["q", "s", "z"], "y", {}),
    ]
    graph = helper.make_graph(
        [helper.make_node(op, inputs, [output], **kw) for op, inputs, output, kw in nodes],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, CHANNELS, 6, 6])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    if change is not None:
        change(graph)
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(
        graph, opset_imports=imports, ir_version=helper.find_min_ir_version_for(imports)
    )


def stored_as(name: str, data_type: int, to: int) -> Change:
    """Stores an initializer in another type, with a ``Cast`` behind it."""

    def change(graph: onnx.GraphProto) -> None:
        (tensor,) = (tensor for tensor in graph.initializer if tensor.name == name)
        array = numpy_helper.to_array(tensor)
        narrow = array.astype(helper.tensor_dtype_to_np_dtype(data_type))
        tensor.CopyFrom(numpy_helper.from_array(narrow, f"{name}_stored"))
        graph.node.insert(0, helper.make_node("Cast", [f"{name}_stored"], [name], to=to))

    return change


def without_zero_point(graph: onnx.GraphProto) -> None:
    """Leaves out the zero point of the bias."""
    graph.node[3].input.pop()


def computed_scale(graph: onnx.GraphProto) -> None:
    """Makes the scale of the bias a product."""
    (scale,) = (tensor for tensor in graph.initializer if tensor.name == "bias_scale")
    graph.initializer.remove(scale)
    graph.node.insert(0, helper.make_node("Mul", ["s", "scale"], ["bias_scale"]))


WAYS: dict[str, tuple[Change, int]] = {
    "INT4": (stored_as("codes", TensorProto.INT4, TensorProto.INT8), 21),
    "INT2": (stored_as("codes", TensorProto.INT2, TensorProto.INT8), 25),
    "BFLOAT16": (stored_as("scale", TensorProto.BFLOAT16, TensorProto.FLOAT), 21),
    "FLOAT8E5M2": (stored_as("scale", TensorProto.FLOAT8E5M2, TensorProto.FLOAT), 21),
    "bias without zero point": (without_zero_point, 21),
    "computed scale": (computed_scale, 21),
}


def takes(found: Run, plain: np.ndarray) -> bool:
    """Whether a version loads, fuses and computes a file as it should."""
    if found.error or found.kernels is None or found.optimized is None:
        return False
    # On some processors the kernel has channels last, with a Transpose at both ends.
    left = set(found.kernels) - {"DequantizeLinear", "QLinearConv", "QuantizeLinear", "Transpose"}
    return found.kernels["QLinearConv"] == 1 and not left and np.array_equal(found.optimized, plain)


def measure(interpreter: Interpreter, folder: Path) -> dict[str, Any]:
    """The version, its newest opset, and the ways that it takes."""
    data = folder / "data.npz"
    np.savez(data, x=np.random.default_rng(1).normal(0, 8, (1, 4, 8, 8)).astype(np.float32))
    models = {f"opset {opset}": convolution(opset=opset) for opset in range(21, 28)}
    models |= {name: convolution(change, opset) for name, (change, opset) in WAYS.items()}
    jobs = []
    for name, model in models.items():
        path = folder / f"{name}.onnx"
        path.write_bytes(model.SerializeToString())
        jobs.append(Job(path, data))
    version, runs = interpreter.run(jobs)
    by_name = dict(zip(models, runs, strict=True))
    plain = by_name["opset 21"].plain
    if plain is None:
        return {"version": version, "opset": 0, "ways": []}
    opsets = [int(name.split()[1]) for name in models if name.startswith("opset ")]
    good = [opset for opset in opsets if takes(by_name[f"opset {opset}"], plain)]
    ways = [name for name in WAYS if takes(by_name[name], plain)]
    return {"version": version, "opset": max(good, default=0), "ways": ways}


def differences(found: list[dict[str, Any]]) -> list[str]:
    """Where the table of the package says something else."""
    lines = []
    for row in found:
        version = Version(row["version"])
        if Runtime(version).opset > row["opset"]:
            lines.append(f"{version}: opset {row['opset']}, not {Runtime(version).opset}")
        for way in WAYS:
            data_type = ir.DataType.__members__.get(way)
            taken = data_type is None or Runtime(version).takes(data_type)
            if taken and way not in row["ways"]:
                lines.append(f"{version}: does not take {way!r}, which the package relies on")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="What each version of onnxruntime takes.")
    parser.add_argument("--versions", nargs="+", default=list(VERSIONS))
    parser.add_argument("--cache", type=Path, default=Path(".cache/onnxruntime"))
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    found = []
    for version in sorted(arguments.versions, key=Version):
        with tempfile.TemporaryDirectory() as folder:
            found.append(measure(with_version(version, arguments.cache), Path(folder)))
        print(found[-1], flush=True)
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    problems = differences(found)
    print("\n".join(problems) or "the table of the package agrees")
    raise SystemExit(bool(problems))


if __name__ == "__main__":
    main()
