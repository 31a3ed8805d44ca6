"""Pins the public API: a change here is a change for every user."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import onnx_cgmq
from onnx_cgmq import errors
from onnx_cgmq.settings.config import Settings

NAMES = {
    "AgreementError",
    "Benchmark",
    "BitPlan",
    "BoundError",
    "CgmqError",
    "Check",
    "Config",
    "ConfigError",
    "Curve",
    "CurvePoint",
    "DataError",
    "DataFiles",
    "Direction",
    "Drop",
    "Decision",
    "Effort",
    "EncodingFormat",
    "EpochDone",
    "Event",
    "Exported",
    "Finished",
    "FloatAgreement",
    "Form",
    "Granularity",
    "GridForm",
    "Guide",
    "ImageOptions",
    "Kernel",
    "Limit",
    "Mirror",
    "ModelError",
    "NodeReport",
    "Notice",
    "Outcome",
    "OutputAgreement",
    "OutputError",
    "PlanCost",
    "PlanUse",
    "PointDone",
    "Quality",
    "Ranges",
    "Report",
    "Result",
    "Role",
    "Sensitivity",
    "StageDone",
    "StageProgress",
    "StageStarted",
    "Started",
    "StepDone",
    "Target",
    "TensorPlan",
    "TensorReport",
    "TensorSensitivity",
    "Timing",
    "UnsupportedOperatorError",
    "Verdict",
    "VerificationError",
    "__version__",
    "bench",
    "calibrate",
    "curve",
    "equalize",
    "explain",
    "export_encodings",
    "html_report",
    "insert_gates",
    "inspect",
    "prepare",
    "quantize",
    "sensitivity",
    "verify",
    "write_back",
}

PARAMETERS = {
    "quantize": "model data bound *max_drop *output *validation *config *resume *progress *log "
    "*report **settings",
    "insert_gates": "model config **settings",
    "prepare": "model *runtime",
    "write_back": "gated plan *form *compact *short_names *weight_kernels",
    "bench": "models data *shapes *rows *past *batch *threads *rounds *round_seconds",
    "calibrate": "mirror data *samples *batch_size",
    "equalize": "model data",
    "export_encodings": "source as_format",
    "explain": "model names **settings",
    "curve": (
        "model data bounds points *output *compare *validation *config *progress *log **settings"
    ),
    "sensitivity": "model data *learned *width *samples *config *progress **settings",
    "html_report": "subject *file *float_file *command",
    "inspect": "model shapes *kernels",
    "verify": "reference deployed data *bound *target *float_model",
    "Mirror": "model",
    "Guide": "mirror bound *target *direction *steps *interval",
}


def test_names() -> None:
    assert set(onnx_cgmq.__all__) == NAMES
    assert set(dir(onnx_cgmq)) >= NAMES
    for name in NAMES:
        assert getattr(onnx_cgmq, name) is not None


@pytest.mark.parametrize("name", PARAMETERS)
def test_signature(name: str) -> None:
    assert parameters_of(getattr(onnx_cgmq, name)) == PARAMETERS[name]


@pytest.mark.parametrize("name", sorted(NAMES - {"__version__"}))
def test_documented(name: str) -> None:
    assert inspect.getdoc(getattr(onnx_cgmq, name))


def test_type_checkers_see_the_names_where_they_are() -> None:
    """The lists in ``__init__`` are in step: imports for types, modules, ``__all__``."""
    tree = ast.parse(Path(onnx_cgmq.__file__).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    seen = {alias.name: node.module for node in imports for alias in node.names}
    lazy = {name: module for name, module in seen.items() if name in NAMES}
    assert lazy == onnx_cgmq._MODULES
    assert set(lazy) | {"__version__"} == set(onnx_cgmq.__all__)


def test_every_error_is_public() -> None:
    defined = {n for n, value in vars(errors).items() if inspect.isclass(value)}
    assert defined <= NAMES


def test_settings_by_name_are_those_of_the_config() -> None:
    assert set(Settings.__annotations__) == set(onnx_cgmq.Config.model_fields)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = onnx_cgmq.no_such_name


def test_version_is_that_of_the_project() -> None:
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    (version,) = re.findall(r'^version = "(.+)"$', text, re.MULTILINE)
    assert onnx_cgmq.__version__ == version


def test_import_is_light_and_silent() -> None:
    code = (
        "import sys, onnx_cgmq\n"
        "heavy = {'torch', 'onnxruntime', 'onnxscript', 'typer', 'rich', 'jinja2', 'matplotlib'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
def test_submodules_do_not_hide_functions() -> None:
    # Importing a submodule sets an attribute of its name on the package. Integrations import
    # tools that need not be there.
    code = (
        "import pkgutil, importlib, onnx_cgmq\n"
        "for module in pkgutil.walk_packages(onnx_cgmq.__path__, 'onnx_cgmq.'):\n"
        "    if not module.name.endswith('__main__') and '.integrations.' not in module.name:\n"
        "        importlib.import_module(module.name)\n"
        "functions = ('inspect', 'verify', 'prepare', 'quantize', 'insert_gates', 'write_back')\n"
        "hidden = [name for name in functions if not callable(getattr(onnx_cgmq, name))]\n"
        "assert not hidden, hidden"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "onnx_cgmq", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for subcommand in ("quantize", "inspect", "verify"):
        assert subcommand in done.stdout


def parameters_of(function: object) -> str:
    """Parameter names, with ``*`` before keyword-only ones and ``**`` before the rest."""
    marks = {
        inspect.Parameter.KEYWORD_ONLY: "*",
        inspect.Parameter.VAR_KEYWORD: "**",
    }
    parameters = inspect.signature(function).parameters.values()
    return " ".join(marks.get(parameter.kind, "") + parameter.name for parameter in parameters)
