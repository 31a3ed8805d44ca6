"""ONNX graphs in memory: load, prepare, insert gates, write back. Never imports torch."""
