"""Everything that opens an onnxruntime session, or that knows what onnxruntime takes and runs."""
