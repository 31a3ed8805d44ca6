"""Pages that the site makes of files outside of docs/, their links, and the table of settings."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_origin, get_type_hints

if TYPE_CHECKING:  # a test reads ROOT_PAGES, and has no MkDocs
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT_PAGES = {
    "README.md": "get-started.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
"""Files of the repository that are pages of the site, and where."""

_ROOT = Path(__file__).parents[2]
_LINK = re.compile(r"(?<!!)\[([^\[\]]*)\]\(([^\s()]+)\)")
_PICTURES = "https://github.com/onnx-cgmq/onnx-cgmq/raw/main/docs/images/"
"""Where the README has its pictures, as PyPI shows it without the repository."""
_ROLE = re.compile(r":\w+:`~?(?:\w+\.)*(\w+)`")
_SETTINGS = "<!-- all settings -->"


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds the pages."""
    from mkdocs.structure.files import File

    for source, page in ROOT_PAGES.items():
        content = (_ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links between files of the repository into links between pages."""
    if _SETTINGS in markdown:
        markdown = markdown.replace(_SETTINGS, "\n".join(_settings_table()))
    markdown = markdown.replace(_PICTURES, "images/")
    return _LINK.sub(
        partial(_link, page.file.src_uri, (config.repo_url or "").rstrip("/")), markdown
    )


def _link(page: str, repository: str, link: re.Match[str]) -> str:
    """A link of a page: to another page, to the repository, or just its text."""
    text, url = link[1], link[2]
    blobs = f"{repository}/blob/main/"
    path, sharp, anchor = url.partition("#")
    if repository and url.startswith(blobs):
        path = path.removeprefix(blobs)
    elif not path or ":" in path:
        return link[0]
    else:
        sources = {place: source for source, place in ROOT_PAGES.items()}
        folder = posixpath.dirname(sources.get(page, f"docs/{page}"))
        path = posixpath.normpath(posixpath.join(folder, path))
    target = ROOT_PAGES.get(path)
    if target is None and path.startswith("docs/") and path.endswith(".md"):
        target = path.removeprefix("docs/")
    if target is not None:
        return f"[{text}]({posixpath.relpath(target, posixpath.dirname(page))}{sharp}{anchor})"
    return f"[{text}]({blobs}{path}{sharp}{anchor})" if repository else text


def _settings_table() -> Iterator[str]:
    """The fields of Config with their types and defaults, in Markdown."""
    import griffe

    from onnx_cgmq import Config

    (section,) = (
        section
        for section in griffe.Docstring(Config.__doc__ or "", parser="google").parse()
        if section.kind is griffe.DocstringSectionKind.attributes
    )
    meanings = {item.name: " ".join(item.description.split()) for item in section.value}
    types = get_type_hints(Config)
    yield "| setting | type | default | meaning |"
    yield "|---|---|---|---|"
    for name, setting in Config.model_fields.items():
        default, meaning = _text(setting.default), _ROLE.sub(r"`\1`", meanings[name])
        yield f"| `{name}` | `{_type_text(types[name])}` | `{default}` | {meaning} |"


def _text(value: Any) -> str:
    if isinstance(value, Enum):
        return repr(value.value)
    return repr(getattr(value, "name", value))


def _type_text(hint: Any) -> str:
    if isinstance(hint, type) and get_origin(hint) is None:
        return hint.__name__
    return re.sub(r"\b(?:[a-z_]+\.)+(?=\w)", "", str(hint))
