"""The Python snippets of the README run, in order, in one namespace."""

from __future__ import annotations

import re
from pathlib import Path

import onnxruntime as ort
import pytest
import torch

ROOT = Path(__file__).parent.parent
SNIPPET = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snippets = SNIPPET.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(snippets) == 3
    (tmp_path / "examples").symlink_to(ROOT / "examples", target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    namespace: dict[str, object] = {"__name__": "readme"}

    for number, snippet in enumerate(snippets, start=1):
        exec(compile(snippet, f"README.md, snippet {number}", "exec"), namespace)

    assert namespace["result"].plan.cost.rbop <= 0.009
    assert namespace["plan"].cost.rbop <= 0.02
    ort.InferenceSession(tmp_path / "lenet5.int.onnx")


def test_commands_of_the_quick_start_exist() -> None:
    targets = re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    assert targets == ["demo", "test"]
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
