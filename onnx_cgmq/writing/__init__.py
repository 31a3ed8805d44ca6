"""Writing a learned plan into ONNX: one module per target form."""
