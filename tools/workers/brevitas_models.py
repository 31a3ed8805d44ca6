"""Makes quantized networks with Brevitas, exports them, and says how each was made.

Run by ``tools/compare/inspect.py`` in an environment of its own, without onnx-cgmq:

    pip install torch==2.13.0
    pip install brevitas==0.13.4 qonnx==1.0.0 onnxoptimizer onnxscript
    python tools/workers/brevitas_models.py FOLDER

Every network is exported as QONNX and as QCDQ, by torch's exporter and by the older one, which
traces TorchScript. Constants that torch's exporter makes inputs too are made constants again.
``FOLDER/brevitas.json`` lists the files, the widths and multiply-accumulates of their layers as the
network was built, and what QONNX's ``inference_cost`` says of the QONNX files.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import json
import math
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import brevitas.nn as qnn
import onnx
import torch
from brevitas.export import export_onnx_qcdq, export_qonnx
from brevitas.quant import (
    Int8WeightPerChannelFloat,
    SignedBinaryActPerTensorConst,
    SignedBinaryWeightPerTensorConst,
)
from torch import Tensor, nn


@dataclass(frozen=True)
class Layer:
    """One layer as it was built.

    Attributes:
        weight: Bits of its weights.
        activation: Bits of its input.
        macs: Multiply-accumulates for one sample.
    """

    weight: int
    activation: int
    macs: int


class LeNet(nn.Module):
    """Two convolutions and two linear layers; ``bits`` are (input, weight) of every layer.

    One bit is a sign: its weights and activations are -1 and 1.
    """

    sample = (1, 1, 20, 20)

    def __init__(self, bits: tuple[tuple[int, int], ...], per_channel: bool = False) -> None:
        super().__init__()
        inputs, weights = zip(*bits, strict=True)
        self.inputs = nn.ModuleList(_activation(width) for width in inputs)
        settings = [_weight(width, per_channel) for width in weights]
        self.conv1 = qnn.QuantConv2d(1, 8, 5, bias=True, **settings[0])
        self.conv2 = qnn.QuantConv2d(8, 12, 3, bias=True, **settings[1])
        self.fc1 = qnn.QuantLinear(12 * 9, 30, bias=True, **settings[2])
        self.fc2 = qnn.QuantLinear(30, 10, bias=False, **settings[3])

    def forward(self, x: Tensor) -> Tensor:
        """Scores."""
        x = torch.relu(self.conv1(self.inputs[0](x)))
        x = nn.functional.max_pool2d(self.inputs[1](x), 2)
        x = torch.relu(self.conv2(x))
        x = nn.functional.max_pool2d(self.inputs[2](x), 2)
        x = torch.relu(self.fc1(torch.flatten(x, 1)))
        result: Tensor = self.fc2(self.inputs[3](x))
        return result


class Residual(nn.Module):
    """A depthwise and a pointwise convolution with a sum around them, and a linear layer."""

    sample = (1, 3, 10, 10)

    def __init__(self) -> None:
        super().__init__()
        self.first = qnn.QuantIdentity(bit_width=8)
        self.stem = qnn.QuantConv2d(3, 8, 3, padding=1, bias=False, weight_bit_width=8)
        self.inside = qnn.QuantReLU(bit_width=6)
        self.depthwise = qnn.QuantConv2d(8, 8, 3, padding=1, groups=8, **_weight(5, True))
        self.between = qnn.QuantReLU(bit_width=7)
        self.pointwise = qnn.QuantConv2d(8, 8, 1, bias=False, **_weight(3, True))
        self.last = qnn.QuantIdentity(bit_width=4)
        self.head = qnn.QuantLinear(8 * 25, 10, bias=True, weight_bit_width=6)

    def forward(self, x: Tensor) -> Tensor:
        """Scores."""
        x = self.inside(self.stem(self.first(x)))
        y = self.pointwise(self.between(self.depthwise(x)))
        y = nn.functional.max_pool2d(self.last(x + y), 2)
        result: Tensor = self.head(torch.flatten(y, 1))
        return result


_MIXED = ((8, 8), (4, 3), (3, 2), (2, 4))
_SIGNS = ((8, 4), (3, 1), (2, 1), (1, 5))
_LAYERS_OF_RESIDUAL = ((8, 8), (6, 5), (7, 3), (4, 6))

NETWORKS: dict[str, tuple[Callable[[], LeNet | Residual], tuple[tuple[int, int], ...]]] = {
    "LeNet, 8/4/3/2 bits": (lambda: LeNet(_MIXED), _MIXED),
    "LeNet, scales by channel": (lambda: LeNet(_MIXED, per_channel=True), _MIXED),
    "LeNet, signs": (lambda: LeNet(_SIGNS), _SIGNS),
    "residual, 8/7/6/5/4/3 bits": (Residual, _LAYERS_OF_RESIDUAL),
}
"""How to build a network, and (input bits, weight bits) of its layers."""


def _activation(width: int) -> nn.Module:
    settings = {"act_quant": SignedBinaryActPerTensorConst} if width == 1 else {"bit_width": width}
    activation: nn.Module = qnn.QuantIdentity(**settings)
    return activation


def _weight(width: int, per_channel: bool) -> dict[str, Any]:
    if width == 1:
        return {"weight_quant": SignedBinaryWeightPerTensorConst}
    quantizer = {"weight_quant": Int8WeightPerChannelFloat} if per_channel else {}
    return {"weight_bit_width": width, **quantizer}


def layers(network: nn.Module, bits: tuple[tuple[int, int], ...], x: Tensor) -> list[Layer]:
    """What every layer multiplies, counted in a run of the network."""
    macs: list[int] = []

    def count(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weights = module.weight.numel() // module.weight.shape[0]  # of one output
        macs.append(weights * math.prod(output.shape[1:]))

    modules = (m for m in network.modules() if isinstance(m, (qnn.QuantConv2d, qnn.QuantLinear)))
    hooks = [module.register_forward_hook(count) for module in modules]
    network(x)
    for hook in hooks:
        hook.remove()
    return [
        Layer(weight, activation, n) for (activation, weight), n in zip(bits, macs, strict=True)
    ]


def qonnx_cost(path: Path) -> dict[str, Any]:
    """Bit operations as QONNX counts them, without its discount for weights that are zero.

    ``qonnx_unknown`` are the operators that it does not know and takes for float.
    """
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.util.cleanup import cleanup_model
    from qonnx.util.inference_cost import inference_cost

    model = cleanup_model(ModelWrapper(str(path)))
    cost = inference_cost(model, discount_sparsity=False)["total_cost"]
    unknown = (
        sorted(ast.literal_eval(cost["unsupported"])) if cost["unsupported"] != "set()" else []
    )
    return {"qonnx_bops": int(cost["total_bops"]), "qonnx_unknown": unknown}


def fix_constants(path: Path) -> None:
    """Takes constants off the inputs of a file: no width follows from what callers may override."""
    model = onnx.load(path, load_external_data=False)
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    onnx.save(model, path)


def export(folder: Path) -> list[dict[str, Any]]:
    """Writes all files; one that Brevitas refuses to export has its reason in ``error``."""
    records = []
    for number, (name, (build, bits)) in enumerate(NETWORKS.items()):
        torch.manual_seed(number)
        network = build()
        x = torch.rand(network.sample)
        network(torch.rand(8, *network.sample[1:]))  # ranges
        network.eval()
        built = [asdict(layer) for layer in layers(network, bits, x)]
        for form, write in (("QONNX", export_qonnx), ("QCDQ", export_onnx_qcdq)):
            for exporter in ("torch.export", "TorchScript"):
                path = folder / f"{number}-{form}-{exporter}.onnx"
                record = {"network": name, "form": form, "exporter": exporter, "layers": built}
                try:
                    write(network, x, str(path), dynamo=exporter == "torch.export")
                    fix_constants(path)
                    record["file"] = path.name
                    if form == "QONNX":
                        record |= qonnx_cost(path)
                except Exception as error:  # whatever exporters meet
                    record["error"] = f"{type(error).__name__}: {str(error)[:200]}"
                records.append(record)
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    torch.set_num_threads(1)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        files = export(folder)
    versions = {name: version(name) for name in ("brevitas", "qonnx", "torch")}
    content = {"versions": versions, "files": files}
    (folder / "brevitas.json").write_text(json.dumps(content, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
