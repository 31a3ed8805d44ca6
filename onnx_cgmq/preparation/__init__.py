"""From any float model to one that gates can be put on: opset, precision, fusions, rewrites."""
