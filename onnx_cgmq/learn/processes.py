"""Several processes that learn together, as ``torchrun`` starts them; one alone does nothing here.

All processes do the same, in the same order, and decide by the same numbers, so all of them hold
the same gates and weights. What is expensive is shared:

* A batch that gradients are made of is split by rows. Outputs are gathered and gradients summed, so
  the loss is that of the whole batch, whatever it computes.
* Batches that are only judged go to the processes in turns.

A process that stops early leaves. The others notice at the next exchange, leave too, and each ends
the run by itself, of which the first writes the files.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any, Final, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from onnx_cgmq.contract.launch import Launch
from onnx_cgmq.contract.stopped import PROCESS_ENDED, Stopped
from onnx_cgmq.data.samples import Batch
from onnx_cgmq.mirror.module import Mirror

Item = TypeVar("Item")
Made = TypeVar("Made")

_BACKEND: Final = "gloo"
"""It takes tensors of any device, and notices at once that a process has ended."""


class _Joined:
    """The processes of the run in which this one takes part.

    Attributes:
        group: Those that exchange; ``None`` while this one works by itself.
        splits: Whether a batch may be split by rows.
        own: Whether the group was made here, and goes with the run.
    """

    def __init__(self) -> None:
        self.group: dist.ProcessGroup | None = None
        self.splits = False
        self.own = False


_joined = _Joined()


@contextmanager
def together() -> Iterator[None]:
    """Joins the other processes of a run in the block; alone, it does nothing."""
    launch, handler = Launch.of_environment(), signal.getsignal(signal.SIGTERM)
    if launch.count > 1:
        _joined.own = not dist.is_initialized()
        if _joined.own:
            dist.init_process_group(_BACKEND, rank=launch.rank, world_size=launch.count)
        _joined.group = dist.new_group(backend=_BACKEND)
        _joined.splits = False
    try:
        yield
    finally:
        leave()
        if signal.getsignal(signal.SIGTERM) is signal.SIG_IGN is not handler:
            signal.signal(signal.SIGTERM, handler)


def leave() -> None:
    """Goes on alone."""
    if _joined.group is not None:
        _joined.group = None
        if _joined.own:
            dist.destroy_process_group()


def count() -> int:
    """How many processes work together now."""
    return 1 if _joined.group is None else dist.get_world_size(_joined.group)


def leads() -> bool:
    """Whether this process decides what depends on more than numbers, such as the time."""
    return _rank() == 0


def split_rows(allowed: bool) -> None:
    """Says whether samples are independent of each other, so that a batch may be split by rows."""
    _joined.splits = allowed


def is_split(rows: int) -> bool:
    """Whether a batch of so many rows is split among several processes."""
    return _joined.splits and 1 < count() <= rows


def own_rows(rows: int) -> slice:
    """The rows of a batch that this process computes: all, unless it is split."""
    return _rows_of(_rank(), rows) if is_split(rows) else slice(0, rows)


def own_part(batch: Batch) -> Batch:
    """The part of a batch that this process computes."""
    rows = len(batch.indices)
    return batch.part(own_rows(rows)) if is_split(rows) else batch


def gathered(own: Mapping[str, Tensor], rows: int) -> dict[str, Tensor]:
    """The values of a whole batch, of which each process has computed its rows."""
    if not is_split(rows):
        return dict(own)
    found = {}
    for name, value in own.items():
        parts = []
        for rank in range(count()):
            mine, size = rank == _rank(), len(range(rows)[_rows_of(rank, rows)])
            shape = (size, *value.shape[1:])
            part = value.detach().contiguous() if mine else value.new_empty(shape)
            with _exchange():
                dist.broadcast(part, _global(rank), group=_joined.group)
            parts.append(part)
        found[name] = torch.cat(parts)
    return found


def total(value: Tensor) -> Tensor:
    """The sum of a tensor over all processes."""
    if _joined.group is None:
        return value
    found = value.detach().clone()
    with _exchange():
        dist.all_reduce(found, group=_joined.group)
    return found


def sum_gradients(parameters: Iterable[Tensor]) -> None:
    """Replaces gradients by their sums over all processes.

    A parameter may have none in some of them, where the rows took another branch.
    """
    learned = [p for p in parameters if p.requires_grad]
    if _joined.group is None or not learned:
        return
    has = learned[0].new_tensor([p.grad is not None for p in learned])
    given = [torch.zeros_like(p) if p.grad is None else p.grad for p in learned]
    sums = total(torch.cat([has, *(gradient.reshape(-1) for gradient in given)]))
    flags, *parts = torch.split(sums, [len(has), *(p.numel() for p in learned)])
    for parameter, some, part in zip(learned, flags.tolist(), parts, strict=True):
        parameter.grad = part.view_as(parameter).clone() if some else None


def in_turns(items: Iterable[Item], work: Callable[[Item], Made]) -> list[Made]:
    """What ``work`` makes of each item, in order; each process does some, and all get all.

    While it works, a process is alone.
    """
    if _joined.group is None:
        return [work(item) for item in items]
    group, rank, processes = _joined.group, _rank(), count()
    own: list[Made] = []
    number = 0
    try:
        _joined.group = None
        for number, item in enumerate(items, 1):
            if (number - 1) % processes == rank:
                own.append(work(item))
    finally:
        _joined.group = group
    every: list[list[Made]] = [[] for _ in range(processes)]
    with _exchange():
        dist.all_gather_object(every, own, group=group)
    return [every[index % processes][index // processes] for index in range(number)]


def of_first(value: Made) -> Made:
    """The value that the first process has."""
    if _joined.group is None:
        return value
    holder = [value if _rank() == 0 else None]
    with _exchange():
        dist.broadcast_object_list(holder, _global(0), group=_joined.group)
    found: Any = holder[0]
    return value if _rank() == 0 else found


def every(condition: bool) -> bool:
    """Whether a condition holds in all processes."""
    return not int(total(torch.tensor(int(not condition))))


@torch.no_grad()
def same_state(mirror: Mirror) -> None:
    """Gives all processes the state that the first one has: machines may round differently."""
    if _joined.group is None:
        return
    for tensor in chain(mirror.parameters(), mirror.buffers()):
        received = tensor.detach().contiguous().clone()
        with _exchange():
            dist.broadcast(received, _global(0), group=_joined.group)
        if not torch.equal(received, tensor):
            tensor.copy_(received)


def _rank() -> int:
    return 0 if _joined.group is None else dist.get_rank(_joined.group)


def _global(rank: int) -> int:
    assert _joined.group is not None
    return dist.get_global_rank(_joined.group, rank)


def _rows_of(rank: int, rows: int) -> slice:
    return slice(rows * rank // count(), rows * (rank + 1) // count())


@contextmanager
def _exchange() -> Iterator[None]:
    """An exchange with the other processes.

    Raises:
        Stopped: One of them has ended.
    """
    try:
        yield
    except RuntimeError as error:
        leave()
        if threading.current_thread() is threading.main_thread():
            # torchrun ends the others of a run that lost one, but this one has a file to write.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Stopped(PROCESS_ENDED) from error
