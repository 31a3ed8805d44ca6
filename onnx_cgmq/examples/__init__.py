"""Examples that come with the package: a trained float model and real data, as files.

From the command line, ``python -m onnx_cgmq.examples`` writes them into the current folder.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from onnx_cgmq.errors import OutputError

__all__ = ["Example", "digits"]

_DATA: Final = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Example:
    """Files of an example.

    Attributes:
        model: A trained float model, ``.onnx``.
        train: Data to learn from, ``.npz``.
        test: Data that the model was not trained on, ``.npz``.
    """

    model: Path
    train: Path
    test: Path


def digits(folder: str | os.PathLike[str] = ".") -> Example:
    """Handwritten digits (MNIST), and a small LeNet: 99.3 % of the 10,000 test digits are right.

    The model takes ``image`` (float32, ``[batch, 1, 28, 28]``, pixels / 255) and gives ``logits``
    (float32, ``[batch, 10]``). The data has ``image`` and ``label`` (int64): 3,000 digits to learn
    from, 1,000 to test with.

    Args:
        folder: Where to write the files; it is made if needed. A file that is there stays.

    Returns:
        The paths of ``digits.onnx``, ``digits-train.npz`` and ``digits-test.npz`` in the folder.

    Raises:
        OutputError: The files can't be written, or one of these names has other content.
    """
    to = Path(folder)
    return Example(
        model=_copy("digits.onnx", to),
        train=_copy("digits-train.npz", to),
        test=_copy("digits-test.npz", to),
    )


def _copy(name: str, folder: Path) -> Path:
    """Copies a file of the package, and never overwrites another one."""
    content = (_DATA / name).read_bytes()
    path = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(content)
        elif path.read_bytes() != content:
            raise OutputError(
                f"{path} is there already, with other content than the example's; move it away, "
                "or name another folder"
            )
    except OSError as error:
        raise OutputError(f"{path} can't be written: {error}") from error
    return path
