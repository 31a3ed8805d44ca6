"""A pass of Olive (``olive-ai``): quantizes an ONNX model under a bound, within a workflow.

Olive finds passes in its package configuration. ``python -m onnx_cgmq.integrations.olive FILE``
writes Olive's own with this pass added, for ``olive run --package-config FILE``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

import onnx_ir as ir
from olive.common.config_utils import validate_config
from olive.data.config import DataConfig
from olive.hardware.accelerator import AcceleratorSpec
from olive.model import ONNXModelHandler
from olive.model.utils import resolve_onnx_path
from olive.package_config import OlivePackageConfig
from olive.passes import Pass
from olive.passes.onnx.common import get_external_data_config, model_proto_to_olive_model
from olive.passes.pass_config import BasePassConfig, PassConfigParam

import onnx_cgmq as cgmq

_MODULE: Final = {
    "module_path": "onnx_cgmq.integrations.olive.OnnxCgmqQuantization",
    "supported_providers": ["*"],
    "supported_accelerators": ["*"],
    "supported_precisions": ["*"],
    "supported_algorithms": [],
    "supported_quantization_encodings": ["qdq"],
    "dataset": "dataset_required",
}


def package_config() -> dict[str, Any]:
    """Returns Olive's package configuration with the pass of this module."""
    text = Path(OlivePackageConfig.get_default_config_path()).read_text(encoding="utf-8")
    config: dict[str, Any] = json.loads(text)
    config["passes"][OnnxCgmqQuantization.__name__] = _MODULE
    return config


class OnnxCgmqQuantization(Pass):  # type: ignore[misc]
    """Learns the width of every tensor under a bound, with :func:`onnx_cgmq.quantize`."""

    @classmethod
    def _default_config(cls, accelerator_spec: AcceleratorSpec) -> dict[str, PassConfigParam]:
        return {
            "data_config": PassConfigParam(
                type_=DataConfig | dict,
                required=True,
                description="The samples to learn from.",
            ),
            "bound": PassConfigParam(
                type_=str | list[str] | None,
                default_value=None,
                description="What the model may cost, such as '6.25%' or '200KB'; or several.",
            ),
            "max_drop": PassConfigParam(
                type_=str | None,
                default_value=None,
                description="The most that may be lost ('1%', '2%:class', 'snr:30dB'): the "
                "smallest cost that keeps it is searched, within the bound if there is one.",
            ),
            "target": PassConfigParam(
                type_=str,
                default_value="onnxruntime",
                description="The name of a target, or its TOML file.",
            ),
            "effort": PassConfigParam(
                type_=str,
                default_value="normal",
                description="For how long to learn: fast, normal or best.",
            ),
            "labels": PassConfigParam(
                type_=bool,
                default_value=False,
                description="Whether to learn from the labels of the data too.",
            ),
            "settings": PassConfigParam(
                type_=dict[str, Any],
                default_value={},
                description="Further settings of onnx_cgmq.Config by name, such as {'seed': 1}.",
            ),
            **get_external_data_config(),
        }

    def _run_for_config(
        self, model: ONNXModelHandler, config: BasePassConfig, output_model_path: str
    ) -> ONNXModelHandler:
        container = validate_config(config.data_config, DataConfig).to_data_container()
        if config.labels:
            data = container.create_dataloader()
        else:
            data = container.create_calibration_dataloader(
                model_path=model.model_path, io_config=model.io_config
            )
        result = cgmq.quantize(
            model.model_path,
            data,
            config.bound,
            max_drop=config.max_drop,
            target=config.target,
            effort=config.effort,
            **config.settings,
        )
        path = resolve_onnx_path(output_model_path, Path(model.model_path).name)
        written = model_proto_to_olive_model(ir.to_proto(result.model), path, config)
        agreement = result.float_agreement
        attributes = {
            "bound": config.bound,
            "rbop": result.cost.rbop,
            "float_agreement": None if agreement is None else agreement.to_record(),
        }
        written.model_attributes = {**(model.model_attributes or {}), "onnx_cgmq": attributes}
        return written


def main() -> None:
    """Writes the package configuration into the file that the command line names."""
    parser = argparse.ArgumentParser(description="Write Olive's package configuration with ours.")
    parser.add_argument("file", type=Path, help="for olive run --package-config FILE")
    text = json.dumps(package_config(), indent=2)
    parser.parse_args().file.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
