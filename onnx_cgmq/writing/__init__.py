"""Writes a plan into a standard ONNX model: one module for each form, and what forms share."""
