"""What other tools start in a process of its own, since it needs other packages or may crash.

Most run in an interpreter that has neither this package nor onnx-cgmq: these import only what their
docstrings name, and are started as scripts, by their paths. The others run as modules.
"""
