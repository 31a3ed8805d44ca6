"""Tells functions apart: by their names, their code, and the values that they carry."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType
from typing import Any, Final

import numpy as np
from torch import Tensor

_METHODS: Final = ("__call__", "forward")
"""What a callable object computes with; a torch module does so in ``forward``."""


def function_digest(function: Callable[..., Any]) -> str:
    """A digest of a function, lambda, bound method, ``functools.partial`` or callable object.

    It changes with the name, the code, defaults, captured variables and attributes, but not with
    comments and line numbers. What the function calls is not looked into.
    """
    digest = hashlib.blake2b()
    _add(digest, function, {})
    return digest.hexdigest()


def _add(digest: hashlib.blake2b, value: Any, seen: dict[int, Any]) -> None:
    if isinstance(value, (type(None), bool, int, float, complex, str, bytes)):
        digest.update(f"{value!r} ".encode())
        return
    digest.update(f"{_name(type(value))} ".encode())
    if id(value) in seen:  # an object may refer to itself
        return
    seen[id(value)] = value  # kept alive, so that no other object gets its id
    for part in _parts(value):
        _add(digest, part, seen)


def _parts(value: Any) -> Iterable[Any]:
    """What a value is made of. Objects that nothing is known of count by their type only."""
    if isinstance(value, CodeType):
        return value.co_code, value.co_names, value.co_varnames, value.co_consts
    if isinstance(value, FunctionType):
        cells = [_content(cell) for cell in value.__closure__ or ()]
        return _name(value), value.__code__, value.__defaults__, value.__kwdefaults__, cells
    if isinstance(value, MethodType):
        return value.__func__, value.__self__
    if isinstance(value, functools.partial):
        return value.func, value.args, value.keywords
    if isinstance(value, Mapping):
        return (len(value), *(part for item in value.items() for part in item))
    if isinstance(value, (list, tuple)):
        return (len(value), *value)
    if isinstance(value, (set, frozenset)):
        return sorted(map(repr, value))
    if isinstance(value, (np.ndarray, np.generic)):
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, Tensor):
        return str(value.dtype), value.tolist()
    if isinstance(value, (type, BuiltinFunctionType)):
        return (_name(value),)
    if (callable(value) or is_dataclass(value)) and hasattr(value, "__dict__"):
        methods = [vars(cls).get(name) for cls in type(value).__mro__ for name in _METHODS]
        return [*(method for method in methods if isinstance(method, FunctionType)), vars(value)]
    return ()


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # the variable has no value yet
        return None


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"
