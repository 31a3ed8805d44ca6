import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import typer

import onnx_cgmq
from onnx_cgmq.cli.failures import reported
from onnx_cgmq.errors import ModelError


def run(*arguments, folder=None, **how):
    command = [sys.executable, *map(str, arguments)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
    return subprocess.run(command, text=True, cwd=folder, check=False, **streams)


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


@pytest.fixture
def unusual(tmp_path):
    """The float model with names that are not ASCII."""
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21]>
        linear (float[n, 2] x) => (float[n, 3] scores)
        <float[2, 3] w = {1, 0, 0, 0, 1, 0}> { [matmul] scores = MatMul(x, w) }"""
    )
    model.graph.node[0].name = "n\u00b1\u2502\u4e2d"
    onnx.save(model, tmp_path / "unusual.onnx")
    return tmp_path / "unusual.onnx"


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "ascii:strict", "latin-1"])
def test_output_that_lacks_characters_ends_no_command(unusual, data, encoding) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    output = unusual.with_name("out.onnx")
    for arguments in (
        ("quantize", unusual, "--data", data, "--bound", "50%", "-o", output, "--details"),
        ("inspect", output),
        ("inspect", unusual, "--why", "*"),
    ):
        done = run("-m", "onnx_cgmq", *arguments, env=environment, errors="replace")
        assert done.returncode == 0, done.stderr
        assert "\\u4e2d" in done.stdout or "\u4e2d" in done.stdout  # typer prefers UTF-8 to ASCII
    assert output.is_file()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a Linux device that is always full")
@pytest.mark.parametrize("arguments", [("targets",), ("inspect", "nowhere.onnx", "--json")])
def test_output_that_is_full_is_no_bug_of_ours(arguments) -> None:
    with open("/dev/full", "w") as full:
        done = run("-m", "onnx_cgmq", *arguments, stdout=full)
    assert done.returncode == (6 if arguments == ("targets",) else 3)
    assert "Traceback" not in done.stderr
    assert "report" not in done.stderr


def test_output_that_is_closed_is_no_bug_of_ours(cli, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(typer.Exit) as caught, reported(as_json=False, debug=False):
        raise ModelError("wrong")
    assert caught.value.exit_code == 3


LONG = "x" * 300


@pytest.mark.parametrize(
    ("option", "code"),
    [
        (("MODEL", f"{LONG}.onnx"), 3),
        (("--data", LONG), 4),
        (("--validation", LONG), 4),
        (("-o", f"{LONG}.onnx"), 6),
        (("-o", f"{'x' * 247}.onnx"), 6),  # the plan and the checkpoint have longer names
        (("--log", LONG), 6),
        (("--config", LONG), 2),
        (("--target", LONG), 2),
        (("--target", f"{LONG}.toml"), 2),
    ],
)
def test_a_name_that_no_file_can_have(cli, model, data, tmp_path, monkeypatch, option, code):
    monkeypatch.chdir(tmp_path)
    given = {"MODEL": model, "--data": data, "--bound": "50%", "-o": "out.onnx", **dict([option])}
    done = cli("quantize", given.pop("MODEL"), *(part for pair in given.items() for part in pair))
    assert done.exit_code == code, done.stderr
    assert "report" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.npz", "float.onnx"]


@pytest.mark.slow
def test_an_exception_in_a_factory_is_the_users(model, tmp_path) -> None:
    (tmp_path / "mine.py").write_text("def make():\n    raise FileNotFoundError('images/')\n")
    done = run(
        *("-m", "onnx_cgmq", "quantize", model, "--data", "mine:make", "--bound", "50%"),
        *("-o", "out.onnx", "--json"),
        folder=tmp_path,
    )
    assert done.returncode == 4
    error = json.loads(done.stdout)["error"]
    assert error["type"] == "DataError"
    assert "mine:make failed with FileNotFoundError: images/" in error["message"]
    assert "mine.py, line 2, in make" in error["message"]


@pytest.mark.parametrize(
    ("words", "offered"),
    [("onnx-cgmq insp", "inspect"), ("onnx-cgmq quantize m.onnx --effort ", "normal")],
)
def test_the_shell_completes(words, offered):
    asked = {
        "_ONNX_CGMQ_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    done = run("-m", "onnx_cgmq", env={**os.environ, **asked})
    assert offered in done.stdout.split()
    assert done.returncode == 0


def test_help_has_groups_and_no_types_of_python(cli):
    shown = cli("quantize", "--help").stdout
    titles = [line for line in shown.splitlines() if line.endswith(":") and line[0] != " "]
    assert titles == [
        "Arguments:",
        "The file to write:",
        "Data:",
        "Widths:",
        "Learning:",
        "What is shown:",
        "Options:",
    ]
    for command in ("quantize", "inspect", "verify", "bench", "targets"):
        shown = cli(command, "--help").stdout
        for name in ("INTEGER", "FLOAT]", "TEXT", "PATH", "<path>", "<int>", "<str>", "<float>"):
            assert name not in shown, (command, name)
