"""The layers of the package, and who may import what: docs/architecture.md as a test."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "onnx_cgmq"
TOOLS = PACKAGE.parent / "tools"

LAYERS = (
    "errors",  # every error, with an exit code
    "contract",  # the words that all parts share
    "settings",  # what a user may set
    "data",  # samples
    "graph",  # what is known of ONNX graphs
    "ort",  # onnxruntime
    "preparation",  # from any float model to one that gates can be put on
    "gating",  # quantizers in the graph
    "writing",  # from a plan to a standard model
    "mirror",  # the graph in torch
    "cost",  # what widths cost
    "learn",  # ranges, gates and weights under the bound
    "inspection",  # from any quantized model to a report
    "api",  # the public functions
    "reporting",  # HTML pages of results and reports
    "integrations",  # what other tools need to call the package
    "cli",  # the command line
)
"""From the ground up: each may import what stands before it."""

ENTRANCES = {"", "__main__", "examples"}
"""What users start from: ``import onnx_cgmq``, ``python -m onnx_cgmq``, and example data, which use
nothing of the package but its errors."""

TORCH = {"mirror", "learn"}
"""Where torch may be imported; elsewhere only within a function, when a run starts."""

TORCH_IN_FUNCTIONS = {"api.verification"}
ONNXRUNTIME = {"ort"}
NO_PROTOBUF = {"mirror"}
LONGEST_FILE = 350

Import = tuple[str, bool]
"""A module that is imported, and whether that is within a function."""


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_of(path: Path) -> Iterator[Import]:
    """Everything that a file imports, for types only too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {
        node
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node in inner) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                own = name.removeprefix("onnx_cgmq.")
                yield (name if own in FILES else str(node.module)), node in inner


IMPORTS = {
    name: [module.removeprefix("onnx_cgmq.") for module, _ in imports_of(path)]
    for name, path in FILES.items()
}
OWN = {name: [m for m in modules if m in FILES and m] for name, modules in IMPORTS.items()}


def outside(library: str) -> Iterator[tuple[str, bool]]:
    """The files that import a library, and whether within a function."""
    for name, path in FILES.items():
        for module, in_function in imports_of(path):
            if module == library or module.startswith(f"{library}."):
                yield name, in_function


def layer(module: str) -> str:
    return module.split(".")[0]


def test_every_folder_is_a_layer() -> None:
    assert {layer(name) for name in FILES} - ENTRANCES == set(LAYERS)


def test_files_import_nothing_from_a_higher_layer() -> None:
    height = {name: index for index, name in enumerate(LAYERS)}
    higher = [
        (name, other)
        for name, modules in OWN.items()
        for other in modules
        if layer(name) in height and height[layer(other)] > height[layer(name)]
    ]
    assert not higher


def test_examples_use_nothing_but_errors() -> None:
    names = [name for name in FILES if layer(name) == "examples"]
    assert names
    assert {other for name in names for other in OWN[name]} <= {"examples", "errors"}


def test_sub_folders_import_nothing_from_the_folder_above() -> None:
    above = [
        (name, other)
        for name, modules in OWN.items()
        for other in modules
        if folder_of(name).startswith(f"{folder_of(other)}.")
    ]
    assert not above


def test_no_file_is_in_a_circle() -> None:
    assert circles({name: set(modules) for name, modules in OWN.items()}) == []


def test_no_folder_is_in_a_circle() -> None:
    folders: dict[str, set[str]] = {}
    for name, modules in OWN.items():
        here = folder_of(name)
        folders.setdefault(here, set()).update(folder_of(m) for m in modules)
        folders[here].discard(here)
    folders.pop("", None)  # __init__.py names what users import, wherever it is
    assert circles(folders) == []


def test_torch_is_only_where_it_belongs() -> None:
    found = {(name, inside) for name, inside in outside("torch") if layer(name) not in TORCH}
    assert found == {(name, True) for name in TORCH_IN_FUNCTIONS}


def test_onnxruntime_is_only_where_it_belongs() -> None:
    assert {layer(name) for name, _ in outside("onnxruntime")} == ONNXRUNTIME


def test_sessions_are_made_in_one_place() -> None:
    makers = [n for n, p in FILES.items() if "InferenceSession(" in p.read_text(encoding="utf-8")]
    # memory.py has it in the text of a program that runs in a process of its own.
    assert makers == ["ort.memory", "ort.session"]


def test_the_mirror_never_touches_protobuf() -> None:
    for library in ("onnx", "google.protobuf"):
        assert not {name for name, _ in outside(library) if layer(name) in NO_PROTOBUF}


def test_tools_do_not_import_tests() -> None:
    found = {(path, module) for path in TOOLS.rglob("*.py") for module, _ in imports_of(path)}
    assert "tools" in {layer(module) for _, module in found}
    assert not [(path, module) for path, module in found if layer(module) == "tests"]


def test_files_are_short() -> None:
    lines = {n: len(path.read_text(encoding="utf-8").splitlines()) for n, path in FILES.items()}
    assert {name: count for name, count in lines.items() if count > LONGEST_FILE} == {}


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c"]]


def folder_of(module: str) -> str:
    if module == "errors":
        return module
    return ".".join(FILES[module].parent.relative_to(PACKAGE).parts)


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Sets of nodes that reach each other, of two and more."""
    reached = {node: _reach(graph, node) for node in graph}
    found = {
        tuple(sorted(other for other in reached[node] if node in reached.get(other, ())))
        for node in graph
        if node in reached[node]
    }
    return sorted(map(list, found))


def _reach(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += graph.get(node, ())
    return seen
