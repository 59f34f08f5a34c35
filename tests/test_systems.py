"""What people run works where the system offers less than Linux does (see shim/windows.py)."""

import contextlib
import ctypes
import errno
import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import COMMAND
from harness import command, make_inputs, run, tree

from paintproc import media
from paintproc.dataset import growing
from paintproc.errors import MissingError, OutputError
from paintproc.files import remove_dead_scratch, whole_file, whole_folder
from paintproc.jobs import local as jobs
from paintproc.weights import registries

WINDOWS = {"SHIM_SYSTEM": "windows"}
NAME = re.compile(r"""[^<>:"|?*\\/\0-\x1f]*[^<>:"|?*\\/\0-\x1f. ]""")
"""What Windows takes for a name."""
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.I)


def same_as_here(folder, arguments, codes=(0, 0)):
    """Run with the output `out`, here and as on Windows, twice each; what was written by both is the same."""
    for name, shim in (("here", {}), ("there", WINDOWS)):
        for code in codes:
            done = run([str(part) for part in arguments(folder / name / "out")], **shim)
            assert done.returncode == code, (name, done.stderr)
            assert "Traceback" not in done.stderr
    here, there = tree(folder / "here"), tree(folder / "there")
    assert here == there
    assert all(NAME.fullmatch(part) and not RESERVED.fullmatch(part) for name in there for part in name.split("/"))
    return there


def test_generate_as_on_windows(tmp_path, small_file):
    def paint(out):
        out.mkdir(parents=True, exist_ok=True)
        formats = (word for kind in ("frames", "mp4", "sheet") for word in ("--format", kind))
        return COMMAND, "generate", "-i", small_file, "-o", out, "--strokes", 20, "--size", 48, *formats

    assert "out/process.mp4" in same_as_here(tmp_path, paint)


def test_synth_as_on_windows(tmp_path):
    inputs = make_inputs(tmp_path / "in", 2)
    found = same_as_here(tmp_path, lambda out: command(inputs, out, "--workers", 2, "--layout", "shards"))
    assert "out/dataset.json" in found


def test_a_process_that_cannot_be_asked_is_judged_by_age(tmp_path, monkeypatch):
    """On Windows asking by `os.kill` would send Ctrl-C."""
    monkeypatch.delattr(signal, "SIGKILL")
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("a signal was sent"))
    with whole_folder(tmp_path / "a") as scratch:
        (scratch / "x").touch()
        young, old = (scratch.with_name(scratch.name.replace(f"-{os.getpid()}-", f"-{k}-")) for k in (1, 2))
        for path in (young, old):
            path.mkdir()
        for path in (old, scratch):
            os.utime(path, (0, 0))
        remove_dead_scratch(tmp_path)
        assert [path.exists() for path in (scratch, young, old)] == [True, True, False]
    assert (tmp_path / "a" / "x").exists()


@pytest.mark.parametrize("error", [None, errno.EINVAL, errno.EPERM], ids=str)
def test_a_file_appears_without_hard_links(tmp_path, monkeypatch, error):
    def refuse(*_):
        raise OSError(error, os.strerror(error))

    if error is None:
        monkeypatch.delattr(os, "link")
    else:
        monkeypatch.setattr(os, "link", refuse)
    with whole_file(tmp_path / "a") as scratch:
        scratch.write_text("1")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "1")]


def test_an_empty_folder_is_replaced_where_renaming_refuses_it(tmp_path, monkeypatch):
    def rename(source, target):
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(source), None, str(target))
        Path(source).replace(target)

    monkeypatch.setattr(os, "rename", rename)
    target = tmp_path / "a"
    target.mkdir()
    with whole_folder(target) as scratch:
        (scratch / "x").touch()
    with pytest.raises(OutputError), whole_folder(tmp_path / "b") as scratch:
        # another process is faster
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "theirs").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "theirs", "x"]


def test_folders_change_places_without_a_c_library(tmp_path, monkeypatch):
    def load(name, **_):
        raise TypeError("argument of type 'NoneType' is not iterable")

    monkeypatch.setattr(ctypes, "CDLL", load)
    for name in ("old", "new"):
        with whole_folder(tmp_path / "a", replace=lambda: None) as scratch:
            (scratch / name).touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "new"]


def test_only_so_many_workers_are_waited_for(monkeypatch):
    """Windows raises ValueError for more."""
    waited = []

    def wait(handles, timeout):
        waited.append(len(handles))
        return jobs_wait(handles, timeout)

    jobs_wait = jobs.wait
    monkeypatch.setattr(jobs, "wait", wait)
    monkeypatch.setattr(jobs, "WATCHED", 2, raising=False)
    assert sorted(outcome.result for outcome in jobs.run_jobs(range(-4, 0), abs, workers=3)) == [1, 2, 3, 4]
    assert max(waited) == 2


@pytest.mark.parametrize("without", ["module", "name", "right"])
def test_memory_without_a_bound(monkeypatch, without):
    def refuse(*_):
        raise ValueError("current limit exceeds maximum limit")

    if without == "module":
        monkeypatch.setitem(sys.modules, "resource", None)
    elif without == "name":
        monkeypatch.delattr("resource.RLIMIT_AS")
    else:
        monkeypatch.setattr("resource.setrlimit", refuse)
    jobs.limit_memory(1 << 40)


@pytest.mark.parametrize("without", ["function", "name"])
def test_memory_that_the_system_does_not_tell(monkeypatch, without):
    def refuse(name):
        raise ValueError("unrecognized configuration name")

    if without == "function":
        monkeypatch.delattr(os, "sysconf")
    else:
        monkeypatch.setattr(os, "sysconf", refuse)
    assert growing.memory_here() == growing.LEAST_MEMORY


def test_a_signal_without_a_wakeup_descriptor(tmp_path):
    """The handler itself wakes the watching thread, once the interpreter runs Python code again."""
    code = (
        "import os, signal, time; del signal.set_wakeup_fd; from paintproc import stopping; stopping.PATIENCE = 0.2; "
        "stopping.listen(); os.kill(os.getpid(), signal.SIGTERM); time.sleep(20)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=15)
    assert (done.returncode, "Stopped by SIGTERM" in done.stderr) == (75, True)


def test_a_signal_as_on_windows(tmp_path, small_file):
    words = [str(word) for word in (COMMAND, "generate", "-i", small_file, "-o", tmp_path / "out", "--strokes", 20)]
    shim = WINDOWS | {"SHIM_STRIKE": "os:fsync:1", "SHIM_WHEN": "after", "SHIM_STRUCK": tmp_path / "struck"}
    done = run(words, **shim)
    assert (tmp_path / "struck").exists()
    assert done.returncode in (0, 75) and "Traceback" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"small.png", "struck", "out"}


def test_every_name_is_printed_whatever_the_encoding_of_pipes(paintproc, tmp_path, small_file):
    picture = small_file.rename(tmp_path / "猫.png")
    environment = os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "1"}
    more = ("--strokes", 3, "--size", 24, "--format", "sheet", "-q")
    done = paintproc("generate", "-i", picture, *more, env=environment, encoding="utf-8")
    assert (done.returncode, done.stdout) == (0, "猫-process\n"), done.stderr


def test_file_addresses_become_paths_of_the_system(monkeypatch):
    monkeypatch.setattr("urllib.request.url2pathname", lambda path: {"/C:/a%20b": r"C:\a b"}[path])
    assert str(registries._local_path("file:///C:/a%20b")) == r"C:\a b"


def test_what_a_tool_prints_in_another_encoding_is_read():
    assert registries._run([sys.executable, "-c", r"import sys; sys.stdout.buffer.write(b'a\xff')"]) == "a\ufffd"


@pytest.mark.parametrize("lacking", ["file", "program"])
def test_a_system_without_ffmpeg(tmp_path, monkeypatch, lacking):
    def find():
        raise RuntimeError("No ffmpeg exe could be found. Install ffmpeg on your system.")

    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "none"))
    if lacking == "program":
        monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", find)
    with pytest.raises(MissingError, match="ffmpeg cannot be started: "):
        media.save_video(tmp_path / "a.mp4", [np.zeros((4, 4, 3), np.uint8)], 1, 1, "")


def test_ffmpeg_that_ends_early_is_the_reason_given(tmp_path, monkeypatch):
    """Windows says EINVAL where a pipe is broken."""

    class Pipe:
        def write(self, data):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    @contextlib.contextmanager
    def ffmpeg(arguments, **_):
        yield SimpleNamespace(stdin=Pipe(), wait=lambda: 1), io.BytesIO(b"no such encoder")

    monkeypatch.setattr(media, "_ffmpeg", ffmpeg)
    with pytest.raises(OutputError, match="no such encoder"):
        media.save_video(tmp_path / "a.mp4", [np.zeros((4, 4, 3), np.uint8)], 1, 1, "")
