"""Knowledge of ONNX graphs: files, operators, shapes, values. No gates, no onnxruntime."""
