"""The pass of Olive, with stand-ins for what it takes from Olive.

``tools/compare/olive.py`` runs it in Olive itself.
"""

import importlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
import pytest

import onnx_cgmq as cgmq
from onnx_cgmq import examples

NAME = "onnx_cgmq.integrations.olive"


@dataclass
class Handler:
    """Stands in for Olive's ``ONNXModelHandler``."""

    model_path: str
    model_attributes: dict | None = None
    io_config: dict | None = None


class Data:
    """Stands in for a data container: batches with labels, or a reader without."""

    def __init__(self, images, labels):
        self.images, self.labels = images, labels
        self.used = []

    def to_data_container(self):
        return self

    def create_dataloader(self):
        self.used.append("labels")
        return [({"image": self.images}, self.labels)]

    def create_calibration_dataloader(self, model_path, io_config):
        self.used.append("no labels")
        batches = [{"image": self.images}]
        return SimpleNamespace(get_next=lambda: batches.pop() if batches else None)


def save(proto, path, config):
    onnx.save(proto, path)
    return Handler(str(path))


@pytest.fixture
def olive(tmp_path, monkeypatch):
    """The module, imported beside stand-ins."""
    own = tmp_path / "olive_config.json"
    own.write_text(json.dumps({"passes": {"Other": {"module_path": "a.Other"}}}))
    parameter = SimpleNamespace
    contents = {
        "olive.common.config_utils": {"validate_config": lambda config, kind: config},
        "olive.data.config": {"DataConfig": Data},
        "olive.hardware.accelerator": {"AcceleratorSpec": object},
        "olive.model": {"ONNXModelHandler": Handler},
        "olive.model.utils": {"resolve_onnx_path": lambda path, name: str(Path(path) / name)},
        "olive.package_config": {
            "OlivePackageConfig": SimpleNamespace(get_default_config_path=lambda: str(own))
        },
        "olive.passes": {"Pass": object},
        "olive.passes.onnx.common": {
            "get_external_data_config": lambda: {"size_threshold": parameter(default_value=1024)},
            "model_proto_to_olive_model": save,
        },
        "olive.passes.pass_config": {"BasePassConfig": object, "PassConfigParam": parameter},
    }
    for name, values in contents.items():
        module = ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    yield importlib.import_module(NAME)
    sys.modules.pop(NAME, None)


def config_of(olive, **given):
    parameters = olive.OnnxCgmqQuantization._default_config(None)
    defaults = {n: p.default_value for n, p in parameters.items() if hasattr(p, "default_value")}
    assert given.keys() <= parameters.keys()
    return SimpleNamespace(**{**defaults, **given})


@pytest.mark.slow
@pytest.mark.parametrize("labels", [False, True])
def test_a_pass_writes_a_model_within_the_bound(olive, tmp_path, labels):
    digits = examples.digits(tmp_path)
    with np.load(digits.train) as arrays:
        data = Data(arrays["image"][:64], arrays["label"][:64])
    config = config_of(
        olive, data_config=data, bound="3%", effort="fast", labels=labels, settings={"seed": 3}
    )
    folder = tmp_path / "out"
    folder.mkdir()
    model = Handler(str(digits.model), {"kept": 1})
    written = olive.OnnxCgmqQuantization()._run_for_config(model, config, str(folder))
    assert Path(written.model_path) == folder / "digits.onnx"
    check = cgmq.verify(digits.model, written.model_path, digits.test, bound="3%")
    assert check.within_bound
    attributes = written.model_attributes["onnx_cgmq"]
    assert written.model_attributes["kept"] == 1
    assert attributes["rbop"] == pytest.approx(check.rbop)
    assert (attributes["float_agreement"]["accuracy"] is None) is not labels
    assert data.used == ["labels" if labels else "no labels"]
    json.dumps(attributes)


def test_the_package_configuration_has_both(olive, tmp_path, monkeypatch):
    file = tmp_path / "olive.json"
    monkeypatch.setattr(sys, "argv", ["olive", str(file)])
    olive.main()
    passes = json.loads(file.read_text())["passes"]
    assert passes["Other"] == {"module_path": "a.Other"}
    module, _, name = passes["OnnxCgmqQuantization"]["module_path"].rpartition(".")
    assert getattr(sys.modules[module], name) is olive.OnnxCgmqQuantization


def test_the_package_does_not_need_olive():
    code = "import sys; sys.modules['olive'] = None; import onnx_cgmq; onnx_cgmq.quantize"
    subprocess.run([sys.executable, "-c", code], check=True)
