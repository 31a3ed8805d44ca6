"""Files are written whole or not at all, and never in place of anything but a file."""

from __future__ import annotations

import os
import socket
import stat

import pytest

from onnx_cgmq.contract.replace import regular_file, replaced
from onnx_cgmq.errors import OutputError


def write(path, text: str) -> None:
    with replaced(path) as part:
        part.write_text(text)


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_older_file_is_replaced(tmp_path) -> None:
    write(tmp_path / "file", "old")
    write(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt(), OSError(28, "disk full")])
def test_a_failure_leaves_the_older_file(tmp_path, error) -> None:
    write(tmp_path / "file", "old")
    with pytest.raises((type(error), OutputError)):  # noqa: PT012, SIM117
        with replaced(tmp_path / "file") as part:
            part.write_text("half")
            raise error
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_full_disk_is_an_output_error(tmp_path) -> None:
    with pytest.raises(OutputError, match="file: disk full"), replaced(tmp_path / "file"):
        raise OSError(28, "disk full")


def test_others_may_read_the_file(tmp_path) -> None:
    write(tmp_path / "file", "text")
    plain = tmp_path / "plain"
    plain.write_text("text")
    assert (tmp_path / "file").stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_followed_and_stays(tmp_path, there) -> None:
    (tmp_path / "store").mkdir()
    target = tmp_path / "store" / "real"
    if there:
        target.write_text("old")
    (tmp_path / "middle").symlink_to(target)
    (tmp_path / "link").symlink_to("middle")
    write(tmp_path / "link", "new")
    assert target.read_text() == "new"
    assert os.readlink(tmp_path / "link") == "middle"
    assert (tmp_path / "middle").is_symlink()
    assert names(tmp_path) == ["link", "middle", "store"]


def test_special_files_are_left_alone(tmp_path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        for name, kind in (("fifo", "FIFO"), ("link", "FIFO"), ("s", "socket"), (".", "folder")):
            with pytest.raises(OutputError, match=kind):
                write(tmp_path / name, "text")
    assert stat.S_ISFIFO(os.stat(tmp_path / "fifo").st_mode)
    assert names(tmp_path) == ["fifo", "link", "s"]


def test_paths_that_no_file_can_have(tmp_path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    for name in ("x" * 256, "circle", "nul\0"):
        with pytest.raises(OutputError, match="can't write"):
            regular_file(tmp_path / name)


def test_a_name_as_long_as_the_file_system_takes(tmp_path) -> None:
    write(tmp_path / ("x" * 255), "text")
    assert names(tmp_path) == ["x" * 255]


def test_a_missing_folder_is_an_output_error(tmp_path) -> None:
    with pytest.raises(OutputError, match="nowhere"):
        write(tmp_path / "nowhere" / "file", "text")
