"""Files and folders appear whole or not at all."""

import os
import signal
import subprocess
import sys
import time

import pytest

from paintproc.errors import OutputError
from paintproc.files import whole_file, whole_folder


def names(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def test_a_folder_appears_at_the_end(tmp_path):
    with whole_folder(tmp_path / "deep" / "a") as scratch:
        (scratch / "x").write_text("1")
        assert not (tmp_path / "deep" / "a").exists()
    assert names(tmp_path) == ["deep", "deep/a", "deep/a/x"]


def test_a_failure_leaves_nothing(tmp_path):
    for whole in (whole_folder, whole_file):
        with pytest.raises(RuntimeError), whole(tmp_path / "a") as scratch:
            (scratch / "x" if scratch.is_dir() else scratch).write_text("1")
            raise RuntimeError
    assert names(tmp_path) == []


def test_a_full_folder_is_not_replaced_unless_told(tmp_path):
    (tmp_path / "a").mkdir()
    with whole_folder(tmp_path / "a") as scratch:
        (scratch / "x").write_text("1")
    with pytest.raises(OutputError, match="exists already"), whole_folder(tmp_path / "a") as scratch:
        (scratch / "y").write_text("2")
    assert names(tmp_path) == ["a", "a/x"]
    with whole_folder(tmp_path / "a", replace=True) as scratch:
        (scratch / "y").write_text("2")
    assert names(tmp_path) == ["a", "a/y"]


def test_the_old_folder_stays_when_replacing_fails(tmp_path):
    with whole_folder(tmp_path / "a") as scratch:
        (scratch / "x").write_text("1")
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "a", replace=True) as scratch:
        (scratch / "y").write_text(str(1 / 0))
    assert names(tmp_path) == ["a", "a/x"]


def test_a_file_is_not_replaced_unless_told(tmp_path):
    for text, replace in (("1", False), ("2", True)):
        with whole_file(tmp_path / "a", replace=replace) as scratch:
            scratch.write_text(text)
    with pytest.raises(OutputError, match="exists already"), whole_file(tmp_path / "a") as scratch:
        scratch.write_text("3")
    assert (tmp_path / "a").read_text() == "2"
    assert names(tmp_path) == ["a"]


def test_long_names_fit(tmp_path):
    name = "ü" * 127
    with whole_folder(tmp_path / name) as scratch:
        (scratch / "x").touch()
    assert (tmp_path / name / "x").exists()


WRITER = """
import sys, pathlib
from paintproc.files import whole_folder
with whole_folder(pathlib.Path(sys.argv[1])) as scratch:
    for k in range(200):
        {where}.joinpath(str(k)).write_bytes(bytes(100_000))
"""


def kill_while_writing(tmp_path, where: str) -> list[int]:
    """File counts of the folder after kills at different moments; 0 where it is not there."""
    counts = []
    for moment in range(8):
        target = tmp_path / f"{moment}"
        process = subprocess.Popen([sys.executable, "-c", WRITER.format(where=where), target])
        time.sleep(0.08 + 0.012 * moment)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        counts.append(len(list(target.iterdir())) if target.exists() else 0)
    return counts


def test_a_kill_never_shows_half_a_folder(tmp_path):
    assert set(kill_while_writing(tmp_path, "scratch")) <= {0, 200}


def test_the_kill_test_catches_a_writer_that_writes_in_place(tmp_path):
    in_place = "pathlib.Path(sys.argv[1], '').__class__(sys.argv[1])"
    broken = WRITER.replace("with whole_folder(pathlib.Path(sys.argv[1])) as scratch:", "if True:")
    target = tmp_path / "broken"
    target.mkdir()
    process = subprocess.Popen([sys.executable, "-c", broken.format(where=in_place), target])
    while not any(target.iterdir()):
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 0 < len(list(target.iterdir())) < 200
