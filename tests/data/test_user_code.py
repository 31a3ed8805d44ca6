"""What fails in code of the user is an error of its own, with type, message and place."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_cgmq.data import open_data
from onnx_cgmq.data.objects import import_object
from onnx_cgmq.errors import ConfigError, DataError, ModelError


@pytest.fixture
def model() -> ir.Model:
    text = """<ir_version: 8, opset_import: ["": 17]>
        g (float[n, 3] x) => (float[n, 3] y) { y = Identity (x) }"""
    return ir.from_proto(onnx.parser.parse_model(text))


def rows(count: int = 2) -> np.ndarray:
    return np.ones((count, 3), np.float32)


def missing_folder():
    raise FileNotFoundError("images/ is missing")


def breaks_later():
    yield rows()
    raise KeyError("the second batch")


class Reader:
    def get_next(self):
        raise ZeroDivisionError


class Array:
    def __array__(self, *_: object, **__: object):
        raise OSError("the disk is gone")


class Loader:
    def __iter__(self):
        raise PermissionError("not yours")


def leaves():
    sys.exit(0)


def needs_an_argument(path: str):
    return path


@pytest.mark.parametrize(
    ("data", "cause", "told"),
    [
        (missing_folder, FileNotFoundError, "factory missing_folder.*images/ is missing.*in miss"),
        (breaks_later, KeyError, r"after 1 batches.*the second batch.*in breaks_later"),
        (breaks_later(), KeyError, r"\(generator\), after 1 batches"),
        (Reader(), ZeroDivisionError, r"ZeroDivisionError: no message .*in get_next"),
        (Loader(), PermissionError, "not yours.*in __iter__"),
        ([Array()], OSError, "the disk is gone"),
        (leaves, SystemExit, "factory leaves failed with SystemExit: 0"),
        (needs_an_argument, TypeError, "missing 1 required"),
        (map(int, ["x"]), ValueError, "invalid literal"),
    ],
)
def test_an_exception_in_data_is_a_data_error(model, data, cause, told) -> None:
    with pytest.raises(DataError, match=told) as caught:
        open_data(data, model)
    assert type(caught.value.__cause__) is cause


def test_the_place_is_in_code_of_the_user_not_of_a_library(model) -> None:
    def make():
        return np.load("nowhere.npy")

    with pytest.raises(DataError, match=r"test_user_code.py, line \d+, in make"):
        open_data(make, model)


def test_errors_of_this_package_and_interrupts_pass(model) -> None:
    def refuses():
        raise ModelError("another model")

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(ModelError, match=r"^another model$"):
        open_data(refuses, model)
    with pytest.raises(KeyboardInterrupt):
        open_data(interrupted, model)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("def make(:\n", r"SyntaxError: .*bad_module.py, line 1\); this"),
        ("1 / 0\n", r"ZeroDivisionError.*bad_module.py, line 1, in <module>"),
        ("raise SystemExit('usage: ...')\n", "SystemExit: usage"),
        ("import no_such_module\n", "can't import 'bad_module' .*no_such_module"),
    ],
)
def test_a_module_that_fails_is_an_error_of_the_kind_asked_for(
    tmp_path: Path, monkeypatch, content: str, told: str
) -> None:
    (tmp_path / "bad_module.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=told):
        import_object("bad_module:make", ConfigError)


@pytest.mark.slow
def test_no_flipped_byte_of_an_archive_goes_unseen(model, tmp_path) -> None:
    """Checksums cover arrays; names and sizes are checked against each other and the model."""
    path = tmp_path / "d.npz"
    rng = np.random.default_rng(0)
    wanted = rng.normal(size=(40, 3)).astype(np.float32)
    for save in (np.savez, np.savez_compressed):
        save(path, x=wanted)
        whole = path.read_bytes()
        for position in range(len(whole)):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << int(rng.integers(8))
            path.write_bytes(damaged)
            try:
                found = open_data(path, model).batch(np.arange(40)).inputs["x"]
            except DataError:
                continue
            assert np.array_equal(found, wanted)  # a date, a comment


@pytest.mark.parametrize("name", ["x" * 300 + ".npz", "x\0.npz"])
def test_a_name_that_no_file_can_have_is_a_data_error(model, name: str) -> None:
    with pytest.raises(DataError, match="not a readable"):
        open_data(name, model)


def test_a_file_that_changes_during_a_run_is_named(model, tmp_path) -> None:

    for name in "ab":
        np.savez(tmp_path / f"{name}.npz", x=rows(4))
    samples = open_data(tmp_path, model)
    samples.store._cache.clear()
    np.savez(tmp_path / "b.npz", x=rows(2))
    with pytest.raises(DataError, match=r"b.npz: the arrays have other shapes"):
        list(samples.batches(8))
