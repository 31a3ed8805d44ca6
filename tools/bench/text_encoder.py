"""A text encoder in INT8: cosines to the float model, latency and size, beside onnxruntime's own.

Variants: onnxruntime's ``quantize_dynamic`` and ``quantize_static`` with INT8 weights per channel,
and ours with the targets ``ort-dynamic`` and ``ort-cpu``, all of 8 bits and from the same texts.

    python -m tools.bench.text_encoder write FOLDER   # the files; those that are there are kept
    python -m tools.bench.text_encoder table FOLDER   # measures; docs/benchmarks/text_encoder.md
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process

import onnx_cgmq as cgmq
from onnx_cgmq.gating.predicted_kernels import Kernel
from onnx_cgmq.ort.session import open_session
from tools.bench.deploy import make_static, processor
from tools.bench.weights import table
from tools.fetch.text_encoder import Arrays, Tokenizer, fetch, sentences

PAGE: Final = Path("docs/benchmarks/text_encoder.md")
_LEARNED: Final = 256
_HELD_OUT: Final = 512
_LENGTH: Final = 64
_SHAPES: Final = ((1, 16), (1, 128), (8, 128))
_BATCH: Final = 8

_TEXT: Final = """\
# A text encoder

How near is an INT8 text encoder to its float model, and how fast? all-MiniLM-L6-v2 has 6 layers
of 384 channels, and an embedding table that is half of its size. Texts are sentences of the
documentation of Python {python}: {learned} to learn or calibrate from, {held_out} others to
measure, of {length} tokens at most. onnxruntime {version} had one thread on a processor
{processor}.

```sh
python -m tools.bench.text_encoder write FOLDER
python -m tools.bench.text_encoder table FOLDER
```

*Cosine* is that of a sentence's embedding to the float model's, in batches of {batch}: the mean,
and the smallest. *Integer products* are the matrix products that run in integers. *File* is a
share of the float model's. Times are shares of the float model's time in the same round, median
over {rounds} interleaved rounds in one process, for batches of so many sentences x tokens.

{table}

* `dynamic` is `quantize_dynamic`, INT8 weights per channel; `static` is `quantize_static` with
  UINT8 activations and INT8 weights per channel. Its ranges reach from the smallest value to the
  largest, and the -10000 with which the mask hides padding is one of these.
* `ort-dynamic` and `ort-cpu` are ours, with `--bound size:27% --widths 8 --effort fast`.
  `ort-dynamic` has float products inside attention, as `dynamic` has, and onnxruntime runs the
  same kernels of both.
"""


def variants() -> dict[str, Callable[[Path, Path, Arrays], None]]:
    """How each variant's file is made, by name: of the float model, from texts."""
    return {
        "dynamic": _dynamic,
        "static": _static,
        "ort-dynamic": lambda model, out, data: _ours("ort-dynamic", model, out, data),
        "ort-cpu": lambda model, out, data: _ours("ort-cpu", model, out, data),
    }


def _dynamic(model: Path, output: Path, data: Arrays) -> None:
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(model, prepared)
        quantize_dynamic(prepared, output, per_channel=True, weight_type=QuantType.QInt8)


def _static(model: Path, output: Path, data: Arrays) -> None:
    make_static(model, data, output, activations=QuantType.QUInt8)


def _ours(target: str, model: Path, output: Path, data: Arrays) -> None:
    settings: dict[str, Any] = {"target": target, "widths": (8,), "effort": "fast"}
    cgmq.quantize(model, data, "size:27%", output=output, batch_size=32, **settings)


def rows(model: Path, folder: Path, held_out: Arrays, rounds: int) -> Iterator[tuple[str, ...]]:
    """The rows of the table."""
    names = list(variants())
    paths = [model, *(folder / f"{name}.onnx" for name in names)]
    wanted = _embeddings(model, held_out)
    times = []
    for batch, length in _SHAPES:
        data = {name: np.ones((batch, length), np.int64) for name in held_out}
        times.append(cgmq.bench(paths, data, batch=batch, rounds=rounds).timings)
    for index, (name, path) in enumerate(zip(names, paths[1:], strict=True), start=1):
        cosines = (_embeddings(path, held_out) * wanted).sum(-1)
        nodes = cgmq.inspect(path, kernels=True).nodes
        integer = sum(node.kernel is Kernel.INTEGER for node in nodes)
        yield (
            f"`{name}`",
            f"{cosines.mean():.4f}",
            f"{cosines.min():.4f}",
            f"{integer} of {len(nodes)}",
            f"{path.stat().st_size / model.stat().st_size:.3f}",
            *(f"{timings[index].ratio:.2f}" for timings in times),
        )


def _embeddings(model: Path, data: Arrays) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Embeddings of length 1, in onnxruntime as it is by default."""
    session = open_session(model)
    count = len(next(iter(data.values())))
    batches = (
        {name: array[start : start + _BATCH] for name, array in data.items()}
        for start in range(0, count, _BATCH)
    )
    found = np.concatenate([session.run(None, batch)[0] for batch in batches])
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def _texts(vocabulary: Path) -> tuple[Arrays, Arrays]:
    """Tokens to learn from, and others to measure."""
    found = list(sentences())
    order = np.random.default_rng(0).permutation(len(found))[: _LEARNED + _HELD_OUT]
    arrays = Tokenizer(vocabulary)([found[i] for i in order], _LENGTH)
    learned = {name: array[:_LEARNED] for name, array in arrays.items()}
    return learned, {name: array[_LEARNED:] for name, array in arrays.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=("write", "table"))
    parser.add_argument("folder", type=Path, help="where the files of the variants are")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, default=PAGE)
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    model, vocabulary = fetch(options.folder)
    learned, held_out = _texts(vocabulary)
    if options.step == "write":
        for name, make in variants().items():
            output = options.folder / f"{name}.onnx"
            if not output.exists():
                print(name, flush=True)
                make(model, output, learned)
        return
    times = tuple(f"{batch} x {length}" for batch, length in _SHAPES)
    head = ("variant", "cosine", "smallest", "integer products", "file", *times)
    text = _TEXT.format(
        python=platform.python_version(),
        learned=_LEARNED,
        held_out=_HELD_OUT,
        length=_LENGTH,
        version=ort.__version__,
        processor=processor(),
        batch=_BATCH,
        rounds=options.rounds,
        table=table(head, rows(model, options.folder, held_out, options.rounds)),
    )
    options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
