import subprocess
import sys

import pytest

import onnx_cgmq


def run(*arguments, folder=None):
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


def test_version(cli):
    assert cli("--version").stdout == f"onnx-cgmq {onnx_cgmq.__version__}\n"


@pytest.mark.parametrize("command", ["quantize", "inspect", "verify"])
def test_every_option_has_help(cli, command):
    result = cli(command, "--help")
    assert result.exit_code == 0
    assert "--json" in result.stdout


def test_unknown_command(cli):
    assert cli("quantise").exit_code == 2


def test_help_loads_nothing_heavy():
    heavy = "{'torch', 'numpy', 'onnx', 'onnxruntime', 'onnxscript'}"
    code = (
        "import sys; sys.argv = ['onnx-cgmq', '--help']\n"
        "from onnx_cgmq.cli import main\n"
        "try: main()\n"
        f"finally: print(sorted({heavy} & set(sys.modules)))\n"
    )
    assert run("-c", code).stdout.endswith("[]\n")


@pytest.mark.slow
def test_module_runs_and_finds_factories_in_the_current_folder(model, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\ndef samples(): return np.ones((3, 2), 'float32')\n"
    )
    done = run("-m", "onnx_cgmq", "verify", model, model, "--data", "mine:samples", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "samples" in done.stdout
