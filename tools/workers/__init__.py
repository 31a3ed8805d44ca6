"""What other tools start in a process of its own, often with other packages than theirs.

Most run in an interpreter that has neither this package nor onnx-cgmq, so they import only what
their docstrings name, and are started as scripts by their paths.
"""
