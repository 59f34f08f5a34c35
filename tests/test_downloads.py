"""Downloads that are cut, and servers that lie: what arrives is the published file, or nothing."""

import dataclasses
import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from test_weight_sources import Server, left, plain_surroundings, redirect

from paintproc import files
from paintproc.errors import InputError
from paintproc.weights import download as downloads
from paintproc.weights import web
from paintproc.weights.download import download
from paintproc.weights.web import Site, SourceError

DATA = random.Random(2).randbytes(400)
OTHER = random.Random(3).randbytes(400)
SHA256 = hashlib.sha256(DATA).hexdigest()


@dataclasses.dataclass
class Served:
    """A page: `data` in answers of which each breaks off after as many bytes as `cuts` says (None: it does not)."""

    data: bytes = DATA
    cuts: list[int | None] = dataclasses.field(default_factory=list)
    etag: str | None = '"one"'
    status: int = 206
    """What it answers to a request for a part: 206, 200 (the whole) or 416."""
    obeys_condition: bool = True
    shift: int = 0
    """How far the part begins from where it was asked for."""
    length: int = 0
    """What is added to the true Content-Length."""
    pause: float = 0
    """Seconds after every piece."""
    asked: list[tuple[str | None, str | None]] = dataclasses.field(default_factory=list)

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        wanted, condition = request.headers["Range"], request.headers["If-Range"]
        self.asked.append((wanted, condition))
        begin = int(re.findall(r"\d+", wanted)[0]) if wanted else 0
        if wanted and self.status == 416:
            request.send_error(416)
            return
        part = bool(wanted) and self.status == 206 and (condition == self.etag or not self.obeys_condition)
        begin = begin + self.shift if part else 0
        body = self.data[begin:]
        request.send_response(206 if part else 200)
        if self.etag:
            request.send_header("ETag", self.etag)
        if part:
            request.send_header("Content-Range", f"bytes {begin}-{len(self.data) - 1}/{len(self.data)}")
        request.send_header("Content-Length", str(len(body) + self.length))
        request.end_headers()
        body = body[: self.cuts.pop(0) if self.cuts else None]
        step = 40 if self.pause else len(body) or 1
        for place in range(0, len(body), step):
            request.wfile.write(body[place : place + step])
            request.wfile.flush()
            time.sleep(self.pause)


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    plain_surroundings(monkeypatch, tmp_path / "home")
    monkeypatch.setattr(downloads, "PAUSES", (0.0, 0.0))


@pytest.fixture
def server():
    with Server() as server:
        yield server


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


@pytest.fixture
def as_if_ended(monkeypatch):
    """What this process has left is taken for that of one that has ended."""
    monkeypatch.setattr(files, "_is_abandoned", lambda path: True)


def fetch(server: Server, folder: Path, page: Callable, site: Site | None = None, url: str = "/x") -> bool:
    """Whether the file arrived; then nothing else is in `folder`."""
    server.pages["/x"] = page
    target = folder / "x"
    target.unlink(missing_ok=True)
    try:
        download(server.url + url, target, len(DATA), SHA256, site or Site(), folder)
    except SourceError:
        assert not target.exists()
        return False
    assert target.read_bytes() == DATA and left(folder) == ["x"]
    return True


def cut(server: Server, folder: Path, after: int = 100, **changes: object) -> None:
    """Leave a download that broke off, as an earlier process would."""
    before = downloads.PAUSES
    downloads.PAUSES = ()
    try:
        assert not fetch(server, folder, Served(cuts=[after], **changes))
    finally:
        downloads.PAUSES = before


def test_cut_at_any_byte(server, folder):
    for after in range(1, len(DATA)):
        page = Served(cuts=[after])
        assert fetch(server, folder, page)
        assert page.asked == [(None, None), (f"bytes={after}-", '"one"')]


def test_cut_again_and_again(server, folder):
    page = Served(cuts=[7] * 50)
    assert fetch(server, folder, page)
    assert page.asked[-1] == ("bytes=350-", '"one"')


def test_the_next_process_goes_on(server, folder, as_if_ended):
    for after in range(1, len(DATA), 13):
        cut(server, folder, after)
        page = Served()
        assert fetch(server, folder, page)
        assert page.asked == [(f"bytes={after}-", '"one"')]


def test_nothing_more_ends_it(server, folder):
    page = Served(cuts=[100, 0, 0, 0, 0, 0, 0])
    assert not fetch(server, folder, page)
    assert len(page.asked) == 1 + len(downloads.PAUSES)
    assert any(name.endswith("data") for name in left(folder))


def test_nothing_at_all_ends_it_at_once(server, folder):
    page = Served(cuts=[0, 0])
    assert not fetch(server, folder, page)
    assert len(page.asked) == 1 and left(folder) == []


@pytest.mark.parametrize(
    "change",
    [{"etag": None}, {"etag": 'W/"one"'}, {"etag": '"\x7f"'}, {"etag": '"' + "x" * 2000 + '"'}],
    ids=["none", "weak", "odd", "long"],
)
def test_without_a_version_it_begins_anew(server, folder, as_if_ended, change):
    cut(server, folder, **change)
    assert left(folder) == []
    page = Served(cuts=[100], **change)
    assert fetch(server, folder, page)
    assert page.asked == [(None, None)] * 2


def test_the_date_of_the_last_change_is_a_version(server, folder):
    date, page = "Sat, 01 Aug 2026 00:00:00 GMT", Served(cuts=[100], etag=None, obeys_condition=False)

    def dated(request: BaseHTTPRequestHandler) -> None:
        request.send_header_before = request.end_headers
        request.end_headers = lambda: (request.send_header("Last-Modified", date), request.send_header_before())
        page(request)

    assert fetch(server, folder, dated)
    assert page.asked == [(None, None), ("bytes=100-", date)]


CHANGED = {
    "a new version": {"etag": '"two"'},
    "a new version, the condition ignored": {"etag": '"two"', "obeys_condition": False},
    "a new version without a name": {"etag": None, "obeys_condition": False},
    "no parts": {"status": 200},
    "no such part": {"status": 416},
    "another part": {"shift": 10},
}


@pytest.mark.parametrize("change", CHANGED)
def test_what_does_not_go_on_begins_anew(server, folder, as_if_ended, change):
    """The first try gave bytes of another file; they never get into this one."""
    cut(server, folder, data=OTHER)
    page = Served(**CHANGED[change])
    assert fetch(server, folder, page)
    assert page.asked[0] == ("bytes=100-", '"one"')
    assert page.asked[-1][0] is None or page.status == 200 or page.etag == '"two"'


@pytest.mark.parametrize("change", [{}, {"obeys_condition": False}])
def test_two_versions_are_never_joined(server, folder, as_if_ended, change):
    """Also in what a download that breaks off again leaves, of which no sha256 is taken."""
    cut(server, folder, data=OTHER)
    assert not fetch(server, folder, Served(**({"etag": '"two"', "cuts": [150, 150] + [0] * 9} | change)))
    (data,) = folder.rglob("data")
    assert data.read_bytes() == DATA[: data.stat().st_size] and data.stat().st_size


def test_bytes_that_never_reached_the_disk(server, folder, as_if_ended):
    """After a power cut a file may have zeros where its last bytes should be."""
    cut(server, folder)
    (data,) = folder.rglob("data")
    data.write_bytes(DATA[:60] + bytes(40))
    page = Served()
    assert fetch(server, folder, page)
    assert page.asked == [("bytes=100-", '"one"'), (None, None)]


@pytest.mark.parametrize("length", [-300, -1, 1, 1000])
def test_a_wrong_length(server, folder, length):
    """More than there is: all that counts is there. Less: the rest never comes."""
    page = Served(length=length)
    assert fetch(server, folder, page) == (length > 0)
    assert len(page.asked) <= 4


def test_another_size(server, folder):
    """Of a larger file no more is read than the published one has; a smaller one is never complete."""
    assert fetch(server, folder, Served(DATA + b"1"))
    assert not fetch(server, folder, Served(DATA[:-1]))
    server.pages["/x"] = Served(OTHER * 10)
    with pytest.raises(InputError, match="has the sha256"):
        download(server.url + "/x", folder / "y", len(DATA), SHA256, Site(), folder)


def test_another_file_is_refused_and_removed(server, folder, as_if_ended):
    cut(server, folder)
    page = server.pages["/x"] = Served(OTHER)
    with pytest.raises(InputError, match="has the sha256"):
        download(server.url + "/x", folder / "x", len(DATA), SHA256, Site(), folder)
    assert left(folder) == [] and len(page.asked) == 2


def test_drops_of_bytes_arrive(server, folder, monkeypatch):
    """Slowly in one answer; where the drops come slower than that, in many."""
    monkeypatch.setattr(web, "TIMEOUT", 0.2)
    for pause, answers in ((0.05, "one"), (0.3, "many")):
        page = Served(pause=pause)
        assert fetch(server, folder, page)
        assert (len(page.asked) > 1) == (answers == "many")


def test_a_token_stays_with_its_host(server, folder):
    """Also when it is asked again, and with the part that is asked for."""
    page = Served(cuts=[100])
    server.pages["/old"] = redirect(f"{server.elsewhere}/x")
    assert fetch(server, folder, page, Site(token=lambda url: "Bearer word"), "/old")
    assert server.asked == [("/old", "Bearer word"), ("/x", None)] * 2
    assert page.asked[-1] == ("bytes=100-", '"one"')


GET = """
import sys
from pathlib import Path
from paintproc.weights import download
from paintproc.weights.web import Site
download.PAUSES = ()
folder = Path(sys.argv[1])
download.download(sys.argv[2], folder / sys.argv[3], {size}, "{sha256}", Site(), folder)
"""


def start(server: Server, folder: Path, name: str) -> "subprocess.Popen[bytes]":
    code = GET.format(size=len(DATA), sha256=SHA256)
    command = [sys.executable, "-c", code, str(folder), server.url + "/x", name]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_was_killed(server, folder, number):
    server.pages["/x"] = Served(cuts=[360], pause=0.5)
    process = start(server, folder, "x")
    end = time.monotonic() + 30
    while not any(path.stat().st_size for path in folder.rglob("data")):
        assert time.monotonic() < end
        time.sleep(0.01)
    os.kill(process.pid, number)
    process.wait(30)
    (data,) = folder.rglob("data")
    page = Served()
    there = data.stat().st_size
    assert 0 < there < 360 and fetch(server, folder, page)
    assert page.asked == [(f"bytes={there}-", '"one"')]


def test_several_at_once(server, folder):
    """One of them goes on with what a dead one left, the others begin; all end well."""
    server.pages["/x"] = Served(cuts=[100])
    assert start(server, folder, "x").wait(60)
    page = server.pages["/x"] = Served(pause=0.05)
    running = [start(server, folder, f"x{number}") for number in range(4)]
    assert [process.wait(60) for process in running] == [0] * 4
    assert sorted(asked[0] or "" for asked in page.asked) == ["", "", "", "bytes=100-"]
    assert left(folder) == [f"x{number}" for number in range(4)]
    assert {path.read_bytes() for path in folder.iterdir()} == {DATA}
