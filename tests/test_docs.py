"""The pages of the docs: all of them are in the site, and their links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import onnx_cgmq

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"\]\(([^\s()]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
IDENTIFIER = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)

PAGES = sorted(DOCS.rglob("*.md"))
WITH_LINKS = sorted(
    [*PAGES, *ROOT.glob("*.md"), *ROOT.glob("examples/**/*.md"), *ROOT.glob("onnx_cgmq/**/*.md")]
)


def navigation() -> set[str]:
    """The pages that the site shows."""
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    (nav,) = re.findall(r"^nav:\n((?:  .*\n)+)", text, re.MULTILINE)
    return set(re.findall(r"([\w./-]+\.md)\b", re.sub(r"#.*", "", nav)))


def pages_of_the_root() -> dict[str, str]:
    """Files outside of docs/ that are pages of the site, and where."""
    path = DOCS / "_hooks" / "pages.py"
    spec = importlib.util.spec_from_file_location("pages", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ROOT_PAGES


def prose(path: Path) -> str:
    """What a file says, without its code."""
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def anchors(path: Path) -> set[str]:
    """The anchors of headings, as GitHub and the site make them."""
    titles = (
        re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title) for title in HEADING.findall(prose(path))
    )
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def broken_links(path: Path) -> Iterator[str]:
    for link in LINK.findall(CODE.sub("", prose(path))):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        file = path.parent / target if target else path
        if not file.exists() or (anchor and anchor not in anchors(file)):
            yield link


def test_the_site_has_every_page() -> None:
    root = pages_of_the_root()
    assert all((ROOT / source).exists() for source in root)
    assert navigation() == {str(page.relative_to(DOCS)) for page in PAGES} | set(root.values())


@pytest.mark.parametrize("path", WITH_LINKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    assert list(broken_links(path)) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `title`, here\n[a](page.md#a-title-here) [b](#b) [c](c.md) [d](https://d)\n"
    )

    assert list(broken_links(page)) == ["#b", "c.md"]


def test_the_reference_has_every_public_name() -> None:
    shown = {
        identifier.rpartition(".")[2]
        for page in (DOCS / "api").glob("*.md")
        for identifier in IDENTIFIER.findall(page.read_text(encoding="utf-8"))
    }
    assert shown >= set(onnx_cgmq.__all__) - {"__version__"}
