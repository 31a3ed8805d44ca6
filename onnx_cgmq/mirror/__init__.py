"""The differentiable PyTorch mirror of an ONNX graph, keyed by ONNX value names."""
