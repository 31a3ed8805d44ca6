"""ONNX operators as PyTorch, one family per file."""
