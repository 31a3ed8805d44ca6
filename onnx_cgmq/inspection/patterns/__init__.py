"""Ways to write a quantizer: one file for each, found by :func:`find_grid`."""

from onnx_cgmq.inspection.patterns.dispatch import find_grid

__all__ = ["find_grid"]
