"""The package beside other projects, other versions of onnxruntime, and its own past."""
