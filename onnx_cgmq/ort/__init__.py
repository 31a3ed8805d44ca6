"""Everything that opens an onnxruntime session, or knows what onnxruntime accepts and runs."""
