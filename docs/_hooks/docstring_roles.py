"""Docstrings name code by Sphinx roles; this makes them links, where the site has the target."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import griffe

_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`~?([\w.]+)`")
_logger = griffe.get_logger(__name__)


class DocstringRoles(griffe.Extension):
    """Replaces the roles in all docstrings of a package, once it is loaded."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        for docstring in _docstrings(pkg):
            docstring.value = _ROLE.sub(partial(_link, pkg, docstring), docstring.value)


def _docstrings(item: griffe.Object) -> Iterator[griffe.Docstring]:
    if item.docstring is not None:
        yield item.docstring
    for member in item.members.values():
        if isinstance(member, griffe.Object):  # an alias is what a module imports
            yield from _docstrings(member)


def _link(pkg: griffe.Module, docstring: griffe.Docstring, role: re.Match[str]) -> str:
    """A link to what a role names, or its name alone if the site does not describe it.

    A role that names nothing is a warning, and so an error of ``make docs``.
    """
    name = role[1].rpartition(".")[2]
    try:
        path = _path(pkg, docstring, role[1])
    except (griffe.NameResolutionError, griffe.AliasResolutionError, KeyError):
        where = docstring.parent.path if docstring.parent is not None else pkg.path
        _logger.warning("the docstring of %s names %s, which is nowhere", where, role[1])
        return f"`{name}`"
    return f'<autoref optional identifier="{path}"><code>{name}</code></autoref>'


def _path(pkg: griffe.Module, docstring: griffe.Docstring, name: str) -> str:
    """Where a name is defined: as the docstring's module knows it, or as the package exports it."""
    if not name.startswith(f"{pkg.path}."):
        first, dot, rest = name.partition(".")
        try:
            assert docstring.parent is not None
            first = docstring.parent.resolve(first)
        except griffe.NameResolutionError:
            first = f"{pkg.path}.{first}"
        name = f"{first}{dot}{rest}"
    found = pkg.modules_collection[name]
    return found.final_target.path if isinstance(found, griffe.Alias) else found.path
