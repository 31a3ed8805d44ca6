"""Reads widths and cost from a quantized ONNX file."""
