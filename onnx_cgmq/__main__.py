"""``python -m onnx_cgmq``: the command line."""

from onnx_cgmq.cli import main

if __name__ == "__main__":
    main()
