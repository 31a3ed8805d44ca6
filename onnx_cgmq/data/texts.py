"""Lines of text as the inputs of a model: tokens of the user's tokenizer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from onnx_cgmq.data.extras import extra_package
from onnx_cgmq.data.readers import Item
from onnx_cgmq.data.reading import reading
from onnx_cgmq.data.specs import InputSpec
from onnx_cgmq.errors import DataError

SUFFIX: Final = ".txt"

_IDS, _MASK, _TYPES = "input_ids", "attention_mask", "token_type_ids"

_STEP: Final = 16
"""Where the length is open, lines are padded to a multiple of this, so that batches are few and
padding is short. Our choice."""

_PAD_TOKENS: Final = ("[PAD]", "<pad>", "<|pad|>", "<|endoftext|>", "</s>")
"""What tokenizers that say nothing of padding call the token for it."""


def read_lines(
    path: Path, tokenizer: Path, specs: Sequence[InputSpec], longest: int | None
) -> tuple[list[Item], str]:
    """Tokenizes the lines of a file; each line that is not empty is a sample.

    Lines are cut and padded to the length that the model fixes. Where it leaves the length open,
    they are padded to the next multiple of 16 if the model takes a mask, else not at all.

    Args:
        path: The text.
        tokenizer: The file ``tokenizer.json``.
        specs: The inputs of the model: ``input_ids``, ``attention_mask``, ``token_type_ids``; an
            only input may have any name.
        longest: The most tokens of a line; ``None`` leaves that to the tokenizer.

    Returns:
        An item for each length, and a note.

    Raises:
        DataError: A file can't be read, the model has other inputs, or padding is not possible.
    """
    roles = _roles(specs, str(path))
    lines = _lines(path)
    length = next((spec.fixed_length for spec in specs if spec.fixed_length is not None), None)
    if longest is not None and length is not None and longest > length:
        raise DataError(f"{path}: --length {longest}, but the model takes {length} tokens")
    maker = _tokenizer(tokenizer, longest or length)
    masked = _MASK in roles.values()
    padding = _Padding(maker, may_guess=masked, where=str(tokenizer))
    groups: dict[int, list[dict[str, Sequence[int]]]] = defaultdict(list)
    for line in maker.encode_batch(lines):
        full = length or len(line.ids)
        if length is None and masked:
            full = -(-full // _STEP) * _STEP
            full = full if longest is None else min(full, longest)
        groups[full].append(padding.padded(line, full))
    items: list[Item] = []
    for _, group in sorted(groups.items()):
        stacked = {role: np.array([row[role] for row in group]) for role in roles.values()}
        items.append(({name: stacked[role] for name, role in roles.items()}, None))
    sizes = f"{min(groups)} to {max(groups)}" if len(groups) > 1 else str(min(groups))
    return items, f"{len(lines):,} lines of text are samples of {sizes} tokens"


def _roles(specs: Sequence[InputSpec], where: str) -> dict[str, str]:
    """What each input takes, by its name."""
    names = [spec.name for spec in specs]
    if len(names) == 1 and specs[0].dtype.kind in "iu":
        return {names[0]: _IDS}
    unknown = sorted(set(names) - {_IDS, _MASK, _TYPES})
    if unknown or _IDS not in names:
        raise DataError(
            f"{where}: lines of text are for models with the inputs {_IDS!r}, {_MASK!r} and "
            f"{_TYPES!r}, but this one has {', '.join(map(str, specs))}; give arrays in .npz files "
            "or by package.module:factory"
        )
    return {name: name for name in names}


def _lines(path: Path) -> list[str]:
    with reading(path, "text in UTF-8"):
        text = path.read_text(encoding="utf-8-sig")
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if not lines:
        raise DataError(f"{path}: the text is empty; give at least one line")
    return lines


def _tokenizer(path: Path, longest: int | None) -> Any:
    """Reads a tokenizer that cuts lines, and does not pad them."""
    tokenizers = extra_package("tokenizers", "text", str(path))
    with reading(path, "tokenizer", advice="give the tokenizer.json of the model"):
        maker = tokenizers.Tokenizer.from_file(str(path))
        if longest is not None:
            own = maker.truncation
            maker.enable_truncation(min(longest, own["max_length"]) if own else longest)
    return maker


class _Padding:
    """Pads lines as a tokenizer says.

    Args:
        maker: The tokenizer. Its own padding is turned off.
        may_guess: Whether any token will do, since a mask says which tokens count.
        where: The tokenizer, for the messages.
    """

    def __init__(self, maker: Any, may_guess: bool, where: str) -> None:
        own = maker.padding or {}
        ids = (maker.token_to_id(token) for token in _PAD_TOKENS)
        known = next((number for number in ids if number is not None), 0 if may_guess else None)
        self._id = own.get("pad_id", known)
        self._type = own.get("pad_type_id", 0)
        self._left = own.get("direction", "right") == "left"
        self._where = where
        maker.no_padding()

    def padded(self, line: Any, length: int) -> dict[str, Sequence[int]]:
        """Returns tokens, mask and types of a line, as long as is wanted."""
        missing = length - len(line.ids)
        if missing and self._id is None:
            raise DataError(
                f"{self._where}: the tokenizer has no token for padding, and the model takes no "
                "mask; name one in the file, or give arrays in .npz files"
            )
        pads = {_IDS: self._id, _MASK: 0, _TYPES: self._type}
        given = {_IDS: line.ids, _MASK: [1] * len(line.ids), _TYPES: line.type_ids}
        return {
            name: [pads[name]] * missing + values if self._left else values + [pads[name]] * missing
            for name, values in given.items()
        }
