"""The mirror: runs an ONNX graph in PyTorch with gradients, under the graph's own names."""

from onnx_cgmq.mirror.module import Mirror

__all__ = ["Mirror"]
