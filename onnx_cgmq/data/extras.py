"""Packages that only some kinds of data need, and that are installed with an extra of this one."""

from __future__ import annotations

import importlib
from typing import Any

from onnx_cgmq.errors import DataError


def extra_package(module: str, extra: str, where: str) -> Any:
    """Imports a module of a package that need not be installed.

    Args:
        module: The module, such as ``PIL.Image``.
        extra: The extra of onnx-cgmq that installs it.
        where: What is to be read with it, for the message.

    Raises:
        DataError: It is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f"{where}: reading this needs a package that is not installed ({error}); install it "
            f"with pip install 'onnx-cgmq[{extra}]'"
        ) from error
