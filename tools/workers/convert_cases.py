"""Runs one ONNX-to-torch converter on the standard's cases, one JSON line for each case.

Started by ``tools/bench/operators.py``, with the converter on the path, in a process of its own,
which a converter may take down: a line is written before a case is tried and another one after it,
so that a crash or a hang is put down to its case.

    python -m tools.workers.convert_cases onnx-cgmq cases.jsonl
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import sys
import types
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from tools.fetch import backend_cases
from tools.fetch.backend_cases import Case

Run = Callable[[Mapping[str, Tensor]], list[Tensor]]
"""``run(inputs by name) -> outputs in order``."""

SECONDS_A_CASE = 60
LONGEST_REASON = 240
CRASHED = {"plain": "refused: crashed", "frozen": False, "gradient": None}


def onnx_cgmq(model: onnx.ModelProto) -> Run:
    from onnx_cgmq import Mirror

    mirror = Mirror(model)
    return lambda inputs: list(mirror(inputs).values())


def onnx2torch(model: onnx.ModelProto) -> Run:
    stub_torchvision()
    from onnx2torch import convert

    module = convert(model).eval()
    return lambda inputs: as_list(module(*inputs.values()))


def onnx2pytorch(model: onnx.ModelProto) -> Run:
    stub_torchvision()
    from onnx2pytorch import ConvertModel

    module = ConvertModel(model)
    return lambda inputs: as_list(module(*inputs.values()))


CONVERTERS: Mapping[str, Callable[[onnx.ModelProto], Run]] = {
    "onnx-cgmq": onnx_cgmq,
    "onnx2pytorch": onnx2pytorch,
    "onnx2torch": onnx2torch,
}

PASS = "pass"
TORCHVISION = "needs compiled operators of torchvision"


def stub_torchvision() -> None:
    """Puts something in torchvision's place: its wheels don't import beside a CPU-only torch.

    All that the converters take from it are functions that fail here when they are called.
    """

    def unavailable(*_: Any, **__: Any) -> None:
        raise NotImplementedError(TORCHVISION)

    def attribute(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return unavailable

    if "torchvision" not in sys.modules:
        for name in ("torchvision", "torchvision.ops", "torchvision.io"):
            module = types.ModuleType(name)
            module.__dict__["__getattr__"] = attribute
            sys.modules[name] = module
        sys.modules["torchvision"].__dict__["ops"] = sys.modules["torchvision.ops"]


def as_list(outputs: Any) -> list[Tensor]:
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


def given(value: Any) -> Any:
    """An input of a case as torch has it: a tensor, a list of them, or ``None``."""
    if value is None or isinstance(value, list):
        return None if value is None else [given(item) for item in value]
    return to_torch(value)


def to_torch(array: np.ndarray) -> Tensor:
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    narrow = {"int4": np.int8, "uint4": np.uint8, "int2": np.int8, "uint2": np.uint8}
    return torch.from_numpy(array.astype(narrow.get(array.dtype.name, array.dtype)).copy())


def to_numpy(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def frozen(case: Case) -> Case | None:
    """The case with all inputs after the first as initializers, as weights usually are.

    ``None`` if it has no such inputs, or more than one set of them.
    """
    if len(case.data_sets) != 1 or len(case.data_sets[0][0]) < 2:
        return None
    ((inputs, expected),) = case.data_sets
    (first, value), *rest = inputs.items()
    if not all(isinstance(array, np.ndarray) for _, array in rest):
        return None
    model = onnx.ModelProto.FromString(case.model.SerializeToString())
    model.ir_version = max(model.ir_version, 4)
    kept = [v for v in model.graph.input if v.name not in dict(rest)]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in rest)
    return Case(case.name, case.kind, model, (({first: value}, expected),))


def outcome(case: Case, convert: Callable[[onnx.ModelProto], Run]) -> str:
    """``PASS``, ``TORCHVISION``, or what went wrong: ``"refused: ..."`` or ``"wrong: ..."``."""
    try:
        run = convert(case.model)
        for inputs, expected in case.data_sets:
            outputs = run({name: given(value) for name, value in inputs.items()})
            wrong = difference(outputs, expected)
            if wrong:
                return f"wrong: {wrong}"[:LONGEST_REASON]
    except Exception as error:  # whatever a converter raises says that it can't do the case
        message = " ".join(str(error).split())
        if TORCHVISION in message:
            return TORCHVISION
        return f"refused: {type(error).__name__}: {message}"[:LONGEST_REASON]
    return PASS


def difference(got: Any, wanted: Any) -> str | None:
    """The first difference of outputs, which may be lists of others or ``None``."""
    if wanted is None or got is None:
        return None if got is wanted else f"{got}, expected {wanted}"
    if isinstance(wanted, list):
        pairs = zip(got, wanted, strict=True)
        return next(filter(None, (difference(*pair) for pair in pairs)), None)
    return backend_cases.difference(to_numpy(got), wanted)


def has_gradient(case: Case) -> bool:
    """Whether an operator has a gradient to give, and float values to give it for."""
    inputs, expected = case.data_sets[0]
    return not case.operators & backend_cases.NO_GRADIENT and all(
        any(isinstance(x, np.ndarray) and x.size and is_float(x) for x in values)
        for values in (inputs.values(), expected)
    )


def is_float(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" or array.dtype == ml_dtypes.bfloat16


def is_float_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def gradient_reaches(case: Case, convert: Callable[[onnx.ModelProto], Run]) -> bool:
    """Whether a float input gets a gradient."""
    inputs = {name: given(value) for name, value in case.data_sets[0][0].items()}
    floats = [x.requires_grad_() for x in inputs.values() if is_float_tensor(x)]
    try:
        outputs = [y for y in convert(case.model)(inputs) if is_float_tensor(y)]
        torch.autograd.backward([y.double().sum() for y in outputs])
    except Exception:  # no graph to go back through, or one that was overwritten
        return False
    return any(tensor.grad is not None for tensor in floats)


def measure(case: Case, convert: Callable[[onnx.ModelProto], Run]) -> dict[str, Any]:
    plain = outcome(case, convert)
    other = frozen(case)
    return {
        "plain": plain,
        "frozen": other is not None and outcome(other, convert) == PASS,
        "gradient": gradient_reaches(case, convert)
        if plain == PASS and has_gradient(case)
        else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("converter", choices=CONVERTERS)
    parser.add_argument("results", type=Path, help="JSON lines; cases that it has are skipped")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    convert = CONVERTERS[arguments.converter]
    done = set()
    if arguments.results.exists():
        lines = arguments.results.read_text().splitlines()
        done = {json.loads(line)["case"] for line in lines}
    with arguments.results.open("a") as file:

        def write(case: str, record: Any) -> None:
            file.write(json.dumps({"case": case, **record}) + "\n")
            file.flush()

        if not done:
            write("", {"version": version(arguments.converter)})
        for kind in backend_cases.KINDS:
            for case in backend_cases.load(kind):
                key = f"{kind}/{case.name}"
                if key in done or case.is_expanded:
                    continue
                faulthandler.dump_traceback_later(SECONDS_A_CASE, exit=True)
                write(key, CRASHED)
                write(key, measure(case, convert))
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
