"""Files that two versions of a package write are compared byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.compare.written_files import Case, File, differing, page, quantize_cases, write_cases

PACKAGE = """
class Result:
    def __init__(self, content):
        self.content = content

    def save(self, path):
        path.write_bytes(self.content)


def quantize(model, data, bound, **settings):
    return Result({content})
"""
CASES = [Case("a", "m", "d", "100%", {"epochs": 1}), Case("b", "m", "d", "50%", {"epochs": 2})]


def quantized(tmp_path: Path, name: str, content: str) -> dict[str, File]:
    """What a stand-in for the package writes, whose files have the given content."""
    package = tmp_path / name / "onnx_cgmq"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(PACKAGE.format(content=content))
    write_cases(tmp_path, CASES)
    return quantize_cases(package.parent, tmp_path, tmp_path / f"{name}.files")


def test_each_version_writes_its_own_files(tmp_path) -> None:
    before = quantized(tmp_path, "before", "bound.encode()")
    after = quantized(tmp_path, "after", "bound.encode() if settings['epochs'] == 1 else b'60%'")
    assert [file.bytes for file in before.values()] == [4, 3]
    assert before["a"] == after["a"]
    assert differing(before, after) == ["b"]


def test_the_package_must_be_that_of_the_checkout(tmp_path) -> None:
    write_cases(tmp_path, [])
    (tmp_path / "checkout").mkdir()
    with pytest.raises(RuntimeError, match="not the package in"):
        quantize_cases(tmp_path / "checkout", tmp_path, tmp_path / "files")


def test_the_table_says_which_files_differ() -> None:
    before = {"a": File(1000, "0123456789abcdef"), "b": File(20, "fedcba9876543210")}
    after = {"a": File(1000, "0123456789abcdef"), "b": File(20, "0000000000000000")}
    text = page(before, after, "1111111", "2222222 with changes")
    assert "| a | 1,000 | `0123456789ab` | 1,000 | `0123456789ab` | yes |" in text
    assert "| b | 20 | `fedcba987654` | 20 | `000000000000` | **no** |" in text
    assert "--before 1111111`" in text
    assert differing(before, {"a": before["a"]}) == ["b"]
