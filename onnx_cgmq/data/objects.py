"""Imports what users name as ``package.module:name``: data factories and losses."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any, cast

from onnx_cgmq.data.user_code import user_code
from onnx_cgmq.errors import CgmqError, DataError


def import_object(text: str, error_type: type[CgmqError] = DataError) -> Callable[..., Any]:
    """Imports the callable that ``package.module:name`` names.

    Raises:
        CgmqError: Of ``error_type``: the module can't be imported, fails when it is, or has no such
            callable.
    """
    module_name, _, attribute = text.partition(":")
    try:
        with user_code(f"{text}: the import of {module_name!r}", error_type):
            found: Any = importlib.import_module(module_name)
    except CgmqError as error:
        if not isinstance(error.__cause__, ImportError):
            raise
        raise error_type(
            f"{text}: can't import {module_name!r} ({error.__cause__}); give package.module:name "
            "of a module on the Python path"
        ) from error.__cause__
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise error_type(f"{text}: the module {module_name!r} has no {attribute!r}")
        found = getattr(found, part)
    if not callable(found):
        raise error_type(
            f"{text} can't be called, it is of type {type(found).__name__}; give a function"
        )
    return cast(Callable[..., Any], found)


def is_object_path(text: str) -> bool:
    """Whether a string looks like ``package.module:name``."""
    return re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", text) is not None
