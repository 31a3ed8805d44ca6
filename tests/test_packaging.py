"""What the package needs besides its modules is in the wheel."""

from __future__ import annotations

from pathlib import Path

from onnx_cgmq.settings.toml import read_toml

ROOT = Path(__file__).parent.parent


def test_all_data_is_packaged() -> None:
    project = read_toml(ROOT / "pyproject.toml", "project file")
    package = ROOT / "onnx_cgmq"
    patterns = project["tool"]["setuptools"]["package-data"]["onnx_cgmq"]
    packaged = {path for pattern in patterns for path in package.glob(pattern)}
    data = {
        path
        for path in package.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc", ".md")
    }
    assert data
    assert data <= packaged
