"""A device without hardware, to see without a GPU that nothing is left behind on the CPU.

Tensors on it hold tensors of the CPU, which compute. As on a GPU, an operator refuses tensors of
both devices (numbers without axes may be mixed, and indices may be on the CPU), and numpy can't
read them. Values are those of the CPU, so that results can be compared to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME: Final = "guarded"

_MAY_MIX: Final = {
    torch.ops.aten.copy_.default,
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put_.default,
    torch.ops.aten._index_put_impl_.default,
}
"""Operators that take tensors of the CPU beside those of a device; torch's own rules for CUDA."""


class _Guarded(Tensor):
    """A tensor on the device; ``held`` is where its values are."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> _Guarded:
        made = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
        )
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.held.tolist()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.held.untyped_storage()

    def __repr__(self, **options: Any) -> str:
        return f"guarded({self.held!r})"


def _lstm_cell(
    gates: Tensor, hidden: Tensor, cell: Tensor, *biases: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of an LSTM, for which torch has a kernel on every device but the CPU."""
    total = gates + hidden + sum(bias for bias in biases if bias is not None)
    i, f, c, o = total.chunk(4, dim=1)
    after = f.sigmoid() * cell + i.sigmoid() * c.tanh()
    return o.sigmoid() * after.tanh(), after, total


def _computed(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Computes on the CPU, and gives results to the device that they would be on."""
    found = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    guarded = [x for x in found if isinstance(x, _Guarded)]
    left = [x for x in found if not isinstance(x, _Guarded) and x.dim()]
    if guarded and left and func not in _MAY_MIX:
        raise RuntimeError(
            f"{func}: tensors are on {NAME} and, of shape {list(left[0].shape)}, on the CPU"
        )
    wanted = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
    here = wanted.type == NAME if wanted is not None else bool(guarded)
    if func is torch.ops.aten.copy_.default:
        here = isinstance(args[0], _Guarded)
    given = {**kwargs, "device": torch.device("cpu")} if wanted is not None else dict(kwargs)
    plain_args, plain_kwargs = pytree.tree_map_only(_Guarded, lambda x: x.held, (args, given))
    run = _lstm_cell if func is torch.ops.aten._thnn_fused_lstm_cell.default else func
    result = run(*plain_args, **plain_kwargs)
    if not here:
        return result
    result = pytree.tree_map_only(Tensor, _Guarded, result)
    return return_and_correct_aliasing(func, args, dict(kwargs), result) if guarded else result


_LIBRARIES: Final[list[torch.library.Library]] = []
"""What is registered lasts as long as these do."""


@cache
def guarded_device() -> torch.device:
    """Makes the device, once in a process."""
    _setup_privateuseone_for_python_backend(NAME)
    every, one = (torch.library.Library(name, "IMPL") for name in ("_", "aten"))
    every.fallback(_compute, dispatch_key="PrivateUse1")
    # torch.tensor() comes here past the fallback.
    one.impl("_to_copy", partial(_compute, torch.ops.aten._to_copy.default), "PrivateUse1")
    _LIBRARIES.extend((every, one))
    return torch.device(NAME, 0)


def _compute(func: Any, *args: Any, **kwargs: Any) -> Any:
    return _computed(func, args, kwargs)
