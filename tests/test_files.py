"""Files and folders appear whole or not at all."""

import os
import signal
import subprocess
import sys
import time

import pytest

from paintproc.errors import Interrupted, OutputError
from paintproc.files import _machine, _start_of, remove_dead_scratch, whole_file, whole_folder


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
    with whole_folder(tmp_path / "a", replace=lambda: None) as scratch:
        (scratch / "y").write_text("2")
    assert names(tmp_path) == ["a", "a/y"]


def test_the_old_folder_stays_when_replacing_fails(tmp_path):
    with whole_folder(tmp_path / "a") as scratch:
        (scratch / "x").write_text("1")
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "a", replace=lambda: None) as scratch:
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


def kill_at(target, count: int, code: str) -> None:
    """Kill the writer once it has written `count` files, wherever it writes them."""
    process = subprocess.Popen([sys.executable, "-c", code, target])
    while sum(len(list(folder.iterdir())) for folder in target.parent.iterdir() if folder.is_dir()) < count:
        time.sleep(0.0005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("count", [1, 50, 120])
def test_a_kill_never_shows_half_a_folder(tmp_path, count):
    kill_at(tmp_path / "a", count, WRITER.format(where="scratch"))
    assert not (tmp_path / "a").exists()
    assert names(tmp_path)
    with whole_folder(tmp_path / "a") as scratch:
        (scratch / "x").touch()
    assert names(tmp_path) == ["a", "a/x"]


def test_the_kill_test_catches_a_writer_that_writes_in_place(tmp_path):
    broken = WRITER.replace("with whole_folder(pathlib.Path(sys.argv[1])) as scratch:", "if True:")
    (tmp_path / "a").mkdir()
    kill_at(tmp_path / "a", 50, broken.format(where="pathlib.Path(sys.argv[1])"))
    assert 0 < len(list((tmp_path / "a").iterdir())) < 200


@pytest.mark.parametrize("at_once", [True, False])
def test_replacing_is_undone_when_it_is_interrupted(tmp_path, monkeypatch, at_once):
    import ctypes
    from pathlib import Path

    with whole_folder(tmp_path / "a") as scratch:
        (scratch / "old").touch()
    if at_once:
        with whole_folder(tmp_path / "a", replace=lambda: None) as scratch:
            (scratch / "new").touch()
        assert names(tmp_path) == ["a", "a/new"]
        return
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: None)
    rename, calls = Path.rename, []

    def interrupted(self, target):
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), whole_folder(tmp_path / "a", replace=lambda: None) as scratch:
        (scratch / "new").touch()
    assert names(tmp_path) == ["a", "a/old"]


def test_only_dead_processes_scratch_is_removed(tmp_path):
    """Alive is who has the number and began at that time; of another machine's only what is a day old is dead."""
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with whole_folder(tmp_path / "a") as scratch:
        mine = f"-{os.getpid()}-{_start_of(os.getpid())}-"
        assert mine in scratch.name
        theirs = f"-{other.pid}-{_start_of(other.pid)}-"
        alive, again, foreign, old = (
            scratch.with_name(name)
            for name in (
                scratch.name.replace(mine, theirs),
                scratch.name.replace(mine, f"-{other.pid}-1-"),
                scratch.name.replace(f".{_machine()}-", ".00000000-"),
                scratch.name.replace(f".{_machine()}-", ".11111111-"),
            )
        )
        for path in (alive, again, foreign, old):
            path.mkdir()
        os.utime(old, (0, 0))
        remove_dead_scratch(tmp_path)
        assert [path.exists() for path in (scratch, alive, again, foreign, old)] == [True, True, False, True, False]
        (scratch / "x").touch()
    other.kill()
    # it is dead now, and a zombie until it is waited for
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    remove_dead_scratch(tmp_path)
    assert not alive.exists() and foreign.exists()
    other.communicate()


def test_a_file_appears_once(tmp_path, monkeypatch):
    """What another process finished meanwhile is not replaced."""
    with pytest.raises(OutputError, match="exists already"), whole_file(tmp_path / "a") as scratch:
        scratch.write_text("late")
        (tmp_path / "a").write_text("first")
    assert (tmp_path / "a").read_text() == "first"
    assert names(tmp_path) == ["a"]


def test_signals_are_no_ordinary_exceptions():
    assert not issubclass(Interrupted, Exception)


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGTERM, Interrupted), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_is_raised_at_every_look(monkeypatch, number, kind):
    """Code that swallows it goes on until the next one."""
    from paintproc import stopping

    monkeypatch.setattr(stopping, "_state", stopping._State())
    stopping.check_stopped()
    stopping._record(number, None)
    for _ in range(2):
        with pytest.raises(kind):
            stopping.check_stopped()


def test_unfinished_work_is_known_while_it_lasts(tmp_path):
    from paintproc import stopping

    with whole_folder(tmp_path / "a") as folder, whole_file(tmp_path / "b") as file:
        (folder / "x").touch()
        file.touch()
        assert stopping.unfinished == {folder, file}
    assert stopping.unfinished == set()
