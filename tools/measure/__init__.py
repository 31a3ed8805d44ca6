"""What onnxruntime can do, version by version, and what that costs."""
