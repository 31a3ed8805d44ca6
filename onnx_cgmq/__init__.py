"""Bit-widths for ONNX models, learned under a guaranteed bound (CGMQ)."""
