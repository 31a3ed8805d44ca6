"""The differentiable PyTorch mirror of an ONNX graph, keyed by ONNX value names."""

from onnx_cgmq.mirror.module import Mirror

__all__ = ["Mirror"]
