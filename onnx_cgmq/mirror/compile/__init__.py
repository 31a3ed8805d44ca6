"""Compiles an ONNX graph to the program that the mirror runs."""
