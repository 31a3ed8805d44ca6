"""What the README shows runs in an empty folder, and its links lead to what is there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import onnxruntime as ort
import pytest
import torch

from onnx_cgmq.settings.toml import read_toml

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = read_toml(ROOT / "pyproject.toml", "project file")["project"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snippets = blocks("python")
    assert len(snippets) == 3
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    namespace: dict[str, object] = {"__name__": "readme"}

    for number, snippet in enumerate(snippets, start=1):
        exec(compile(snippet, f"README.md, snippet {number}", "exec"), namespace)

    assert namespace["result"].plan.cost.rbop <= 0.009
    assert namespace["plan"].cost.rbop <= 0.02
    ort.InferenceSession(tmp_path / "digits.int.onnx")


def test_commands_run(tmp_path: Path) -> None:
    (block,) = (block for block in blocks("sh") if "onnx-cgmq quantize" in block)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    for line in block.splitlines():
        program, *arguments = shlex.split(line, comments=True)
        module = ["-m", "onnx_cgmq"] if program == "onnx-cgmq" else []
        subprocess.run(
            [sys.executable, *module, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path},
            check=True,
            capture_output=True,
        )
    ort.InferenceSession(tmp_path / "digits.int.onnx")


def test_make_commands_exist() -> None:
    targets = re.findall(r"^make (\w+)", README, re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    assert targets == ["demo", "quick", "test"]
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_links_lead_to_what_is_there() -> None:
    # PyPI shows the README without the repository, so links must be absolute.
    targets = re.findall(r"\]\(([^)]+)\)|^\[[^\]]+\]: (\S+)$", README, re.MULTILINE)
    links = [inline or reference for inline, reference in targets]
    repository = PROJECT["urls"]["Homepage"]
    own = [link for link in [*links, *PROJECT["urls"].values()] if link.startswith(repository)]
    assert len(own) > 10
    for link in links:
        assert link.startswith("https://")
    for link in own:
        kind, _, path = link.removeprefix(repository).strip("/").partition("/main/")
        if kind in ("blob", "raw"):
            assert (ROOT / path).is_file(), link
        elif kind == "tree":
            assert (ROOT / path).is_dir(), link
        else:
            assert kind in ("", "issues"), link


def test_every_reference_has_a_link() -> None:
    text = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`[^`\n]*`", "", text)
    defined = set(re.findall(r"^\[([^\]]+)\]: ", text, re.MULTILINE))
    used = set(re.findall(r"\[([^\]]+)\](?![(:])", text))
    assert used == defined
