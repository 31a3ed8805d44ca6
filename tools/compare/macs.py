"""Compares multiply-accumulates with two independent counts: onnx-tool's and QONNX's.

All three count the same float models at the same shapes: models of ``tools/fetch/models.py``, the
LeNet-5 in ``examples/``, others given by path, and single operators. Of onnx-tool only operators
that multiply and accumulate are taken (it counts additions and activations too), of QONNX the cost
without its discount for weights that are zero.

    pip install onnx-tool==1.0.1 qonnx==1.0.0
    python -m tools.compare.macs --also resnet20.onnx --out docs/benchmarks/macs.md
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from onnx_cgmq import inspect, prepare
from onnx_cgmq.graph.operators import MAC_OP_TYPES
from tools import ROOT
from tools.fetch.models import DEFAULT_CACHE, fetch

Shapes = Mapping[str, tuple[int, ...]]

LENET5 = ROOT / "examples" / "mnist" / "lenet5.onnx"

SHAPES: dict[str, Shapes] = {
    "magika": {"bytes": (1, 2048)},
    "ocr-detection": {"x": (1, 3, 320, 320)},
    "ocr-recognition": {"x": (1, 3, 48, 320)},
    "ocr-orientation": {"x": (1, 3, 48, 192)},
    "open-nsfw": {"input:0": (1, 224, 224, 3)},
}


@dataclass(frozen=True)
class Row:
    """The counts of one model by operator; ``None`` where a tool can't read it.

    Attributes:
        name: The model.
        ours: Our counts.
        qonnx: QONNX's; it knows Conv, Gemm and MatMul only.
        onnx_tool: Those of onnx-tool.
        biases: Additions of biases, which onnx-tool counts.
    """

    name: str
    ours: Counter[str]
    qonnx: Counter[str] | None
    onnx_tool: Counter[str] | None
    biases: Counter[str]

    def to_markdown(self) -> str:
        known = Counter({op: count for op, count in self.ours.items() if op in _QONNX_OPS})
        cells = [
            self.name,
            f"{self.ours.total():,}",
            _cell(known, self.qonnx),
            _cell(self.ours, self.onnx_tool),
            _cell(self.ours, self.onnx_tool and self.onnx_tool - self.biases),
        ]
        return f"| {' | '.join(cells)} |"


def _cell(ours: Counter[str], theirs: Counter[str] | None) -> str:
    """Their total, and the operators that differ."""
    if theirs is None or not ours:
        return "-"
    types = sorted(op for op in {*ours, *theirs} if ours[op] != theirs[op])
    differences = ", ".join(f"{op} {theirs[op] - ours[op]:+,}" for op in types)
    return f"{theirs.total():,}" + (f" ({differences})" if types else "")


def write_table(rows: list[Row]) -> str:
    """The page."""
    tools = " and ".join(f"{name} {version(name)}" for name in ("qonnx", "onnx-tool"))
    lines = [_PAGE.format(tools=tools), *(row.to_markdown() for row in rows), _NOTES]
    return "\n".join(lines)


_QONNX_OPS = ("Conv", "Gemm", "MatMul")

_PAGE = """# Multiply-accumulates, counted three ways

Made by `python -m tools.compare.macs` with {tools}. Every model is float and
prepared; all three count it for one sample, at the same shapes. In brackets: by how much a count
differs from ours, by operator.

| model or operator | ours | QONNX, of Conv, Gemm, MatMul | onnx-tool | onnx-tool less biases |
|---|---|---|---|---|"""

_NOTES = """
* onnx-tool counts the addition of a bias as one more multiply-accumulate; the last column leaves
  these out. In our count biases cost no bit operations ([concepts](../concepts.md)).
* ConvTranspose: onnx-tool multiplies the elements of the output by the positions of the filter and
  by the output channels. But with a stride of 2 only a quarter of these pairs exist, and the sum is
  over input channels. Our count is the number of pairs of an input element and a weight; a plain
  loop in `tests/cost/` checks it.
* LSTM and GRU: onnx-tool adds biases, gates and the cost of exponentials. Its products alone,
  (W + R) x batch x steps, are equal to our count.
* A dash: the tool knows none of the model's operators, or stops at one of them (onnx-tool:
  ReduceMax with axes as an input).
"""


def count_ours(model: onnx.ModelProto, shapes: Shapes) -> Counter[str]:
    counts: Counter[str] = Counter()
    for node in inspect(model, shapes).nodes:
        counts[node.op_type] += node.macs
    return counts


def count_onnx_tool(model: onnx.ModelProto, shapes: Shapes) -> Counter[str]:
    import onnx_tool

    arrays = {name: np.zeros(shape, dtype=_dtype(model, name)) for name, shape in shapes.items()}
    graph = onnx_tool.loadmodel(model, {"verbose": False}).graph
    graph.graph_reorder_nodes()
    graph.shape_infer(arrays)
    graph.profile()
    counts: Counter[str] = Counter()
    for node in graph.nodemap.values():
        if node.op_type in MAC_OP_TYPES:
            counts[node.op_type] += int(node.macs[0])
    return counts


def count_qonnx(model: onnx.ModelProto, shapes: Shapes) -> Counter[str]:
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.util.inference_cost import inference_cost

    # Without its own preprocessing, which makes models newer than onnxruntime loads.
    result = inference_cost(
        ModelWrapper(_at_shapes(model, shapes)),
        preprocess=False,
        discount_sparsity=False,
        cost_breakdown=True,
    )
    costs = result["optype_cost"].items()
    return Counter({op: int(cost["total_macs"]) for op, cost in costs if op in MAC_OP_TYPES})


def _at_shapes(model: onnx.ModelProto, shapes: Shapes) -> onnx.ModelProto:
    """The model with fixed inputs and all shapes that onnx can infer."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    for value in fixed.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes[value.name], strict=True):
            dim.dim_value = size
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(fixed, data_prop=True)


def _dtype(model: onnx.ModelProto, name: str) -> np.dtype:
    (value,) = (value for value in model.graph.input if value.name == name)
    return helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)


def count_biases(model: onnx.ModelProto, shapes: Shapes) -> Counter[str]:
    """Outputs of the operators that add a bias."""
    graph = _at_shapes(model, shapes).graph
    sizes = {v.name: math.prod(_sizes(v)) for v in (*graph.value_info, *graph.output)}
    counts: Counter[str] = Counter()
    for node in graph.node:
        if node.op_type in ("Conv", "ConvTranspose", "Gemm") and len(node.input) > 2:
            counts[node.op_type] += sizes[node.output[0]]
    return counts


def compare(name: str, source: onnx.ModelProto, shapes: Shapes | None = None) -> Row:
    """Counts a model, as prepared, in all three ways."""
    model = ir.to_proto(prepare(source))
    inputs = {value.name: _sizes(value) for value in model.graph.input}
    given = {**inputs, **(shapes or {})}

    def attempt(count: Callable[[onnx.ModelProto, Shapes], Counter[str]]) -> Counter[str] | None:
        try:
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return count(model, given)
        except Exception as error:  # whatever these tools meet in an operator they don't know
            print(f"{name}: {count.__name__} fails: {type(error).__name__}: {str(error)[:200]}")
            return None

    return Row(
        name=name,
        ours=count_ours(model, given),
        qonnx=attempt(count_qonnx),
        onnx_tool=attempt(count_onnx_tool),
        biases=count_biases(model, given),
    )


def _sizes(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim)


def single(
    op_type: str, *shapes: tuple[int, ...], **attributes: Any
) -> tuple[onnx.ModelProto, Shapes]:
    """A model of one node: the first shape is that of the input, the others are weights."""
    rng = np.random.default_rng(0)
    names = [f"i{index}" for index in range(len(shapes))]
    weights = [
        numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        for name, shape in zip(names[1:], shapes[1:], strict=True)
    ]
    outputs = ["y", "state"] if op_type in ("GRU", "LSTM") else ["y"]
    open_shape = [f"d{axis}" for axis in range(len(shapes[0]))]
    graph = helper.make_graph(
        [helper.make_node(op_type, names, outputs, name=op_type, **attributes)],
        "single",
        [helper.make_tensor_value_info(names[0], TensorProto.FLOAT, open_shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model, {names[0]: shapes[0]}


def single_operators() -> dict[str, tuple[onnx.ModelProto, Shapes]]:
    return {
        "Conv 1-D, dilated": single(
            "Conv", (1, 6, 40), (8, 6, 3), kernel_shape=[3], dilations=[2], pads=[2, 2]
        ),
        "Conv 2-D, strided, 2 groups": single(
            "Conv", (1, 6, 20, 22), (8, 3, 3, 5), kernel_shape=[3, 5], strides=[2, 2], group=2
        ),
        "Conv 2-D, depthwise": single(
            "Conv", (1, 6, 20, 22), (6, 1, 3, 3), kernel_shape=[3, 3], pads=[1] * 4, group=6
        ),
        "Conv 3-D": single("Conv", (1, 2, 6, 8, 10), (4, 2, 2, 3, 3), kernel_shape=[2, 3, 3]),
        "ConvTranspose": single(
            "ConvTranspose", (1, 6, 10, 10), (6, 4, 2, 2), kernel_shape=[2, 2], strides=[2, 2]
        ),
        "ConvTranspose, cropped": single(
            "ConvTranspose",
            (1, 6, 10, 10),
            (6, 4, 4, 4),
            kernel_shape=[4, 4],
            strides=[2, 2],
            pads=[1] * 4,
        ),
        "ConvTranspose, 2 groups": single(
            "ConvTranspose", (1, 6, 10, 10), (6, 2, 3, 3), kernel_shape=[3, 3], group=2
        ),
        "Gemm, both transposed": single("Gemm", (7, 5), (9, 7), transA=1, transB=1),
        "MatMul, broadcast": single("MatMul", (1, 4, 5, 7), (7, 9)),
        "Einsum": single("Einsum", (1, 5, 7), (7, 2, 3), equation="bik,khd->bhid"),
        "LSTM, two directions": single(
            "LSTM",
            (9, 1, 5),
            (2, 24, 5),
            (2, 24, 6),
            (2, 48),
            hidden_size=6,
            direction="bidirectional",
        ),
        "GRU": single("GRU", (9, 1, 5), (1, 18, 5), (1, 18, 6), (1, 36), hidden_size=6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="of tools.fetch.models")
    parser.add_argument("--also", type=Path, action="append", default=[], help="one more model")
    parser.add_argument("--out", type=Path, help="the table, as Markdown")
    options = parser.parse_args()

    paths = fetch(options.cache)
    rows = [compare("lenet5", onnx.load(LENET5))]
    rows += [compare(path.stem, onnx.load(path)) for path in options.also]
    rows += [compare(name, onnx.load(paths[name]), shapes) for name, shapes in SHAPES.items()]
    rows += [compare(name, *case) for name, case in single_operators().items()]
    page = write_table(rows)
    print(page)
    if options.out is not None:
        options.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
