"""Where weights come from; authors' address, pip's and npm's registries are played by a server here."""

import base64
import dataclasses
import functools
import hashlib
import io
import json
import os
import random
import re
import socket
import subprocess
import sys
import tarfile
import threading
import time
import urllib.request
import zipfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from paintproc.errors import InputError, MissingError
from paintproc.weights import download, registries, sources, web
from paintproc.weights.manifest import Source, Weight, WeightFile
from paintproc.weights.store import get

DATA = random.Random(1).randbytes(200_000)
WHEEL = "tiny_pack-1.0-py3-none-any.whl"
SDIST = "tiny_pack-1.0.tar.gz"
HTML, JSON, BYTES = "text/html", "application/vnd.pypi.simple.v1+json", "application/octet-stream"


def published(name: str, data: bytes, *sources: Source) -> WeightFile:
    return WeightFile(name, hashlib.sha256(data).hexdigest(), len(data), sources)


def weight(*sources: Source, data: bytes = DATA) -> Weight:
    return Weight("tiny", "Tiny", "MIT", (published("tiny.onnx", data, *sources),))


def left(folder: Path) -> list[str]:
    """All that is in `folder`, but for empty folders of weights."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() or p.name.startswith("."))


def obtain(folder: Path, *sources: Source) -> list[str]:
    """Get `DATA` from `sources`; why it failed."""
    try:
        assert get(weight(*sources), folder, False, lambda done: None)
    except (MissingError, InputError) as error:
        assert left(folder) == []
        return [type(error).__name__, str(error)]
    assert left(folder) == ["tiny/tiny.onnx"]
    assert (folder / "tiny" / "tiny.onnx").read_bytes() == DATA
    return []


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, data in members.items():
            bundle.writestr(name, data)
    return out.getvalue()


def tarred(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as bundle:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            bundle.addfile(info, io.BytesIO(data))
    return out.getvalue()


def wheel(data: bytes = DATA) -> bytes:
    return zipped({"tiny_pack/__init__.py": b"", "tiny_pack/w/tiny.onnx": data, "../../out.txt": b"out"})


def pinned(source: Source, archive: bytes) -> Source:
    """`source` with size and sha256 of its archive."""
    return dataclasses.replace(source, size=len(archive), sha256=hashlib.sha256(archive).hexdigest())


WHEEL_DATA = wheel()
NPM_DATA = tarred({"package/package.json": b"{}", "package/dist/tiny.onnx": DATA})
FROM_WHEEL = pinned(Source("pip", "Tiny_Pack", "1.0", WHEEL, "tiny_pack/w/tiny.onnx"), WHEEL_DATA)


def answer(request: BaseHTTPRequestHandler, body: bytes, kind: str = BYTES, length: object = None) -> None:
    request.send_response(200)
    request.send_header("Content-Type", kind)
    request.send_header("Content-Length", str(len(body) if length is None else length))
    request.end_headers()
    request.wfile.write(body)


def redirect(to: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def page(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", to)
        request.end_headers()

    return page


def endless(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    while True:
        request.wfile.write(b"<p>" * 100_000)


def protected(secret: str, body: bytes, kind: str = BYTES) -> Callable[[BaseHTTPRequestHandler], None]:
    def page(request: BaseHTTPRequestHandler) -> None:
        if request.headers["Authorization"] == secret:
            answer(request, body, kind)
        else:
            request.send_error(401)

    return page


class Request(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server: Server = self.server
        server.asked.append((self.path, self.headers["Authorization"]))
        page = server.pages.get(self.path)
        if page is None:
            self.send_error(404)
        elif callable(page):
            page(self)
        else:
            answer(self, *(page if isinstance(page, tuple) else (page,)))

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Answers from `pages` by path: bytes, bytes and kind, or a function; notes path and Authorization in `asked`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.pages: dict[str, object] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.elsewhere = f"http://localhost:{self.server_port}"
        self.go_on = threading.Event()

    def __enter__(self) -> "Server":
        threading.Thread(target=self.serve_forever, args=(0.02,)).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        """A client that went away is no news."""

    def paused(self, body: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
        """Half of `body`, and the rest when `go_on` is set."""

        def page(request: BaseHTTPRequestHandler) -> None:
            half = len(body) // 2
            answer(request, body[:half], length=len(body))
            request.wfile.flush()
            self.go_on.wait(60)
            request.wfile.write(body[half:])

        return page

    def address(self, page: object = DATA, name: str = "/tiny.onnx") -> Source:
        self.pages[name] = page
        return Source("address", self.url + name)

    def index(self, href: str = f"/files/{WHEEL}", lead: str = "/simple", kind: str = HTML) -> str:
        """A Python index with one package; its address."""
        html = f'<!DOCTYPE html><a href="/files/other.whl">other</a><a href="{href}#sha256=00">it</a>'
        listing = json.dumps({"files": [{"url": "/files/other.whl"}, {"url": href}]})
        self.pages[f"{lead}/tiny-pack/"] = (html if kind == HTML else listing).encode(), kind
        self.pages[f"/files/{WHEEL}"] = WHEEL_DATA
        return self.url + lead

    def package(self, name: str = "@own/tiny", tarball: str | None = None, secret: str | None = None) -> Source:
        """An npm package in the registry /npm."""
        archive = NPM_DATA
        versions = {"1.0.0": {"dist": {"tarball": tarball or f"{self.url}/npm/{name}/-/tiny-1.0.0.tgz"}}}
        listing = json.dumps({"name": name, "versions": versions}).encode()
        place = f"/npm/{name.replace('/', '%2F')}"
        self.pages[place] = protected(secret, listing, "application/json") if secret else listing
        self.pages[f"/npm/{name}/-/tiny-1.0.0.tgz"] = protected(secret, archive) if secret else archive
        return pinned(Source("npm", name, "1.0.0", "", "package/dist/tiny.onnx"), archive)


def plain_surroundings(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """No registry, proxy, token or password from outside."""
    for name in list(os.environ):
        if name.lower().startswith(("pip_", "npm_config_", "hf_", "netrc")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("HF_HOME", str(home / "hub"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("npm_config_userconfig", str(home / ".npmrc"))
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    plain_surroundings(monkeypatch, tmp_path / "home")
    monkeypatch.setattr(download, "PAUSES", (0.0, 0.0))


@pytest.fixture
def server():
    with Server() as server:
        yield server


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "weights"


@pytest.fixture
def pip_says(monkeypatch):
    """Settings of pip without asking it, which takes half a second."""

    def say(**settings: str) -> None:
        found = {name.replace("_", "-"): value for name, value in settings.items()}
        monkeypatch.setattr(registries, "_pip_settings", lambda: found)

    return say


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


def closed_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{one.getsockname()[1]}"


def test_address(server, folder):
    assert obtain(folder, server.address()) == []
    assert server.asked == [("/tiny.onnx", None)]
    assert not get(weight(server.address()), folder, False, lambda done: None)
    assert len(server.asked) == 1


@pytest.mark.parametrize("kind", [HTML, JSON])
def test_python_index(server, folder, monkeypatch, kind):
    monkeypatch.setenv("PIP_INDEX_URL", server.index(kind=kind))
    assert obtain(folder, FROM_WHEEL) == []
    assert [path for path, _ in server.asked] == ["/simple/tiny-pack/", f"/files/{WHEEL}"]
    assert not list(folder.parent.rglob("out.txt"))


def test_further_index(server, folder, monkeypatch):
    server.pages["/simple/tiny-pack/"] = b"<a href='tiny_pack-0.9.tar.gz'>old</a>", HTML
    monkeypatch.setenv("PIP_INDEX_URL", server.url + "/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"{server.url}/none {server.index(lead='/more')}/")
    assert obtain(folder, FROM_WHEEL) == []
    assert [path for path, _ in server.asked][:3] == ["/simple/tiny-pack/", "/none/tiny-pack/", "/more/tiny-pack/"]


def test_the_index_that_pip_has_by_itself(monkeypatch):
    monkeypatch.delenv("PIP_INDEX_URL")
    assert registries._pip_settings()["index-url"].startswith("https://")


def test_no_index_means_none(server, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", server.index())
    monkeypatch.setenv("PIP_NO_INDEX", "y")
    with pytest.raises(web.SourceError, match="no Python registry"):
        registries.python_archive("tiny-pack", WHEEL, False)
    assert server.asked == []


@pytest.mark.parametrize("shape", ["folder", "file: folder", "folder with page", "page on the network"])
def test_find_links(server, folder, tmp_path, pip_says, shape):
    server.index("sub/" + WHEEL)
    archives = tmp_path / "my archives"
    (archives / "sub").mkdir(parents=True)
    if shape == "folder with page":
        (archives / "index.html").write_bytes(server.pages["/simple/tiny-pack/"][0])
    (archives / ("sub" if shape == "folder with page" else "") / WHEEL).write_bytes(WHEEL_DATA)
    server.pages["/simple/tiny-pack/sub/" + WHEEL] = WHEEL_DATA
    spaceless = tmp_path / "links"
    spaceless.symlink_to(archives)
    place = {"folder": str(spaceless), "page on the network": server.url + "/simple/tiny-pack/"}
    pip_says(find_links=place.get(shape, spaceless.as_uri()))
    assert obtain(folder, FROM_WHEEL) == []
    assert bool(server.asked) == (shape == "page on the network")


def test_an_index_that_is_a_folder(folder, tmp_path, monkeypatch):
    place = tmp_path / "mirror" / "tiny-pack"
    place.mkdir(parents=True)
    (place / WHEEL).write_bytes(WHEEL_DATA)
    (place / "index.html").write_text(f"<a href='{WHEEL}'>it</a>")
    monkeypatch.setenv("PIP_INDEX_URL", place.parent.as_uri())
    assert obtain(folder, FROM_WHEEL) == []


def test_nothing_in_a_package_is_run(server, folder, tmp_path, pip_says):
    script = f"import pathlib; pathlib.Path({str(tmp_path / 'marker')!r}).touch()"
    run = {f"tiny_pack-1.0/{name}": script.encode() for name in ("setup.py", "conftest.py", "w/__init__.py")}
    source = Source("pip", "tiny-pack", "1.0", SDIST, "tiny_pack-1.0/w/tiny.onnx")
    archive = tarred({**run, source.member: DATA, "tiny_pack-1.0/w/more.onnx": b"more"})
    pip_says(index_url=server.index(f"/files/{SDIST}"))
    server.pages[f"/files/{SDIST}"] = archive
    assert obtain(folder, pinned(source, archive)) == []
    assert not (tmp_path / "marker").exists()
    subprocess.run([sys.executable, "-c", script], check=True)
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("name", ["tiny", "@own/tiny"])
def test_javascript_registry(server, folder, monkeypatch, name):
    monkeypatch.setenv("npm_config_registry", server.url + "/npm/")
    assert obtain(folder, server.package(name)) == []


@pytest.mark.parametrize("npm", [True, False])
def test_javascript_registry_of_a_scope(server, folder, tmp_path, monkeypatch, npm):
    """Also without npm, and where the address has a password, which npm does not list."""
    if not npm:
        monkeypatch.setattr(registries.shutil, "which", lambda name: None)
    source = server.package(secret=basic("user:word"))
    registry = f"{server.url}/npm/".replace("//", "//user:${WORD}@")
    monkeypatch.setenv("WORD", "word")
    (tmp_path / "home" / ".npmrc").write_text(f"; mine\n@own:registry={registry}\n")
    assert obtain(folder, source) == []


def faulty(server: Server, fault: str) -> Source:
    first = server.address(name="/first")
    server.pages["/first"] = {
        "lost": None,
        "short": lambda request: answer(request, DATA[:9], length=len(DATA)),
        "stalled": server.paused(DATA),
        "wrong": DATA[::-1],
        "small": DATA[:-1],
        "large": DATA[::-1] + b"1",
        "endless": endless,
        "no number": lambda request: answer(request, DATA, length="many"),
        "silent": lambda request: request.connection.close(),
        "loop": redirect("/first"),
        "to nowhere": redirect("http://[nowhere/"),
        "to a file": redirect("file:///etc/hostname"),
    }.get(fault)
    return Source("address", closed_port() + "/first") if fault == "refused" else first


FAULTS = {
    "lost": "answers 404", "refused": "cannot be reached: connection refused", "short": "broke off after 9 of 200000",
    "stalled": "no answer within 0.3 s|timed out", "wrong": "has the sha256", "small": "broke off after 199999",
    "large": "has the sha256", "endless": "has the sha256", "silent": "cannot be reached",
    "loop": "answers 302", "to nowhere": "cannot be reached", "to a file": "answers 302",
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_the_next_source_is_asked(server, folder, monkeypatch, fault):
    monkeypatch.setattr(web, "TIMEOUT", 0.3)
    first, second = faulty(server, fault), Source("address", server.url + "/none")
    kind, said = obtain(folder, first, second)
    assert kind == ("InputError" if fault in ("wrong", "large", "endless") else "MissingError")
    assert re.search(FAULTS[fault], said) and "/first" in said
    assert kind == "InputError" or "/none answers 404" in said
    server.asked.clear()
    assert obtain(folder, first, server.address()) == []
    assert [path for path, _ in server.asked][-1] == "/tiny.onnx"
    assert fault == "refused" or server.asked[0][0] == "/first"


def test_the_first_source_that_works_is_the_last_asked(server, folder):
    assert obtain(folder, server.address(), server.address(name="/second")) == []
    assert [path for path, _ in server.asked] == ["/tiny.onnx"]


def test_a_length_that_is_no_number_counts_as_none(server, folder):
    assert obtain(folder, faulty(server, "no number")) == []


def test_two_packages_of_one_registry_are_two_archives(server, folder, pip_says):
    """The archive of a package that lacks the file is not taken for the next one's."""
    archive = zipped({"other.onnx": DATA})
    other = pinned(Source("pip", "other", "1.0", "other-1.0.zip", "tiny.onnx"), archive)
    pip_says(index_url=server.index())
    server.pages["/simple/other/"] = b"<a href='/files/other-1.0.zip'>", HTML
    server.pages["/files/other-1.0.zip"] = archive
    assert obtain(folder, other, FROM_WHEEL) == []


@pytest.mark.parametrize("kind", ["pip", "npm"])
def test_another_archive_is_never_opened(server, folder, monkeypatch, pip_says, kind):
    """Its sha256 is looked at first: an archive that is not the published one may be made to do harm."""
    pip_says(index_url=server.index())
    monkeypatch.setenv("npm_config_registry", server.url + "/npm/")
    source = FROM_WHEEL if kind == "pip" else server.package("tiny")
    changed = bytearray(WHEEL_DATA if kind == "pip" else NPM_DATA)
    changed[-1] ^= 1
    server.pages[f"/files/{WHEEL}" if kind == "pip" else "/npm/tiny/-/tiny-1.0.0.tgz"] = bytes(changed)
    monkeypatch.setattr(sources, "take_member", lambda *_: pytest.fail("it was opened"))
    kind, said = obtain(folder, source)
    assert kind == "InputError" and "has the sha256" in said and "refused" in said


def test_one_package_with_two_files_is_read_once(server, folder, pip_says):
    pip_says(index_url=server.index())
    first = published("tiny.onnx", DATA, FROM_WHEEL)
    second = published("empty.onnx", b"", dataclasses.replace(FROM_WHEEL, member="tiny_pack/__init__.py"))
    assert get(Weight("tiny", "Tiny", "MIT", (first, second)), folder, False, lambda done: None)
    assert left(folder) == ["tiny/empty.onnx", "tiny/tiny.onnx"]
    assert len(server.asked) == 2


PAGES = {
    "login": ((b"<form action=/login><a href='/help'>help</a></form>", HTML), "has no tiny_pack"),
    "garbage": ((b"<![odd\x00<a href='http://[::/'><!", HTML), "has no tiny_pack"),
    "bad json": ((b'{"files": [', JSON), "no package index"),
    "odd json": ((b'{"files": [1, null]}', JSON), "no package index"),
    "deep json": ((b"[" * 100_000, JSON), "no package index"),
    "empty": ((b"", HTML), "has no tiny_pack"),
    "endless": (endless, "does not end"),
}


@pytest.mark.parametrize("name", PAGES)
def test_pages_that_are_no_index(server, folder, pip_says, name):
    pip_says(index_url=server.index())
    server.pages["/simple/tiny-pack/"], reason = PAGES[name]
    kind, said = obtain(folder, FROM_WHEEL)
    assert kind == "MissingError" and reason in said


@pytest.mark.parametrize("page", [b"<html>login", b"[]", b'{"versions": {"1.0.0": []}}', b"[" * 100_000])
def test_pages_that_are_no_javascript_registry(server, folder, monkeypatch, page):
    monkeypatch.setenv("npm_config_registry", server.url + "/npm/")
    source = server.package("tiny")
    server.pages["/npm/tiny"] = page, "application/json"
    assert "does not know tiny 1.0.0" in obtain(folder, source)[1]


def test_a_bad_link_does_not_hide_the_good_one(server, folder, pip_says):
    pip_says(index_url=server.index())
    body, kind = server.pages["/simple/tiny-pack/"]
    server.pages["/simple/tiny-pack/"] = b"<a href='http://[::/" + WHEEL.encode() + b"'>" + body + b"<![odd", kind
    assert obtain(folder, FROM_WHEEL) == []


@pytest.mark.parametrize("kind", [HTML, JSON, "npm"])
def test_the_network_does_not_point_into_this_machine(server, folder, tmp_path, monkeypatch, pip_says, kind):
    here = tmp_path / WHEEL
    here.write_bytes(WHEEL_DATA)
    pip_says(index_url=server.index(here.as_uri(), kind=kind))
    monkeypatch.setenv("npm_config_registry", server.url + "/npm/")
    source = server.package("tiny", "file:///etc/passwd") if kind == "npm" else FROM_WHEEL
    said = obtain(folder, source)[1]
    assert "points to a file of this machine" in said


def test_a_redirect_never_gives_up_encryption():
    handler = web._Redirects()
    follow = functools.partial(handler.redirect_request, fp=None, code=302, msg="", headers={})
    secure = urllib.request.Request("https://a.test/x?key=word")
    with pytest.raises(web.SourceError, match=r"^https://a\.test/x leads to an address that is not https$"):
        follow(secure, newurl="http://a.test/x")
    assert follow(secure, newurl="https://b.test/x").full_url == "https://b.test/x"
    assert follow(urllib.request.Request("http://a.test/x"), newurl="http://b.test/x").host == "b.test"


def with_password(url: str, user: str = "user:se%40cret") -> str:
    return url.replace("//", f"//{user}@", 1)


@pytest.mark.parametrize("kind", [HTML, JSON])
def test_a_password_reaches_index_and_files(server, folder, monkeypatch, kind):
    monkeypatch.setenv("PIP_INDEX_URL", with_password(server.index(kind=kind)))
    secret = basic("user:se@cret")
    for path in ("/simple/tiny-pack/", f"/files/{WHEEL}"):
        page = server.pages[path]
        server.pages[path] = protected(secret, *(page if isinstance(page, tuple) else (page,)))
    assert obtain(folder, FROM_WHEEL) == []
    assert [sent for _, sent in server.asked] == [secret, secret]


def test_a_password_goes_nowhere_else(server, folder, tmp_path, pip_says):
    with Server() as other:
        other.index()
        for host in (server.elsewhere, other.url):
            pip_says(index_url=with_password(server.index(f"{host}/files/{WHEEL}")))
            assert obtain(folder / host[-9:], FROM_WHEEL) == []
        server.index(f"/moved/{WHEEL}")
        server.pages[f"/moved/{WHEEL}"] = redirect(f"{server.elsewhere}/files/{WHEEL}")
        assert obtain(folder / "moved", FROM_WHEEL) == []
        sent = {path: secret for path, secret in server.asked if secret}
        assert {path for path, _ in server.asked} - set(sent) == {f"/files/{WHEEL}"}
        assert set(sent) == {"/simple/tiny-pack/", f"/moved/{WHEEL}"}
        assert other.asked == [(f"/files/{WHEEL}", None)]


def test_a_password_is_not_sent_in_the_clear_after_all():
    page = "https://user:word@a.test/simple/x/"
    assert registries._checked("https://a.test/f", page) == "https://user:word@a.test/f"
    for address in ("http://a.test/f", "https://b.test/f", "https://a.test:444/f"):
        assert registries._checked(address, page) == address


def test_a_password_goes_along_within_the_host(server, folder, pip_says):
    secret = basic("user:se@cret")
    pip_says(index_url=with_password(server.index(lead="/new")).replace("/new", "/old"))
    server.pages["/old/tiny-pack/"] = redirect("/new/tiny-pack/")
    server.pages["/new/tiny-pack/"] = protected(secret, *server.pages["/new/tiny-pack/"])
    assert obtain(folder, FROM_WHEEL) == []


def test_passwords_of_the_users_netrc(server, folder, tmp_path, pip_says):
    netrc = tmp_path / "home" / ".netrc"
    netrc.write_text("machine 127.0.0.1 login user password word\n")
    netrc.chmod(0o600)
    pip_says(index_url=server.index(f"{server.elsewhere}/files/{WHEEL}"))
    assert obtain(folder, FROM_WHEEL) == []
    assert server.asked == [("/simple/tiny-pack/", basic("user:word")), (f"/files/{WHEEL}", None)]


def test_no_failure_tells_a_password(server, folder, pip_says):
    pages = [None, (b"{", JSON), (b"<p>", HTML), redirect("http://[x/"), protected("", b""), (b"", "no kind")]
    indexes = []
    for number, page in enumerate(pages):
        server.pages[f"/{number}/tiny-pack/"] = page
        indexes.append(f"{server.url}/{number}")
    for link in ("file:///etc/" + WHEEL, "/none/" + WHEEL, "http://[x/" + WHEEL, "http://a b/" + WHEEL):
        lead = f"/link{len(indexes)}"
        indexes.append(server.index(link, lead))
    indexes += [closed_port(), "http://[x/", "ftp://127.0.0.1/", "http://127.0.0.1:99999"]
    for user in ("user:se%40cret", "secret", "user:a/secret", "user:a#secret", "user: secret", "user:\u2019secret"):
        for index in indexes if user.startswith("user:se") else indexes[-2:]:
            pip_says(index_url=with_password(index, user))
            kind, said = obtain(folder, FROM_WHEEL)
            assert kind == "MissingError" and "cret" not in said and "user" not in said, (index, user)


def test_npms_token_is_for_its_registry(server, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("npm_config_registry", server.url + "/npm/")
    host = server.url.removeprefix("http:")
    lines = f"//a.test/:_authToken=no\n{host}/other/:_authToken=no\n{host}/npm/:_authToken=word\n"
    (tmp_path / "home" / ".npmrc").write_text(lines)
    assert obtain(folder / "here", server.package(secret="Bearer word")) == []
    server.asked.clear()
    away = server.package("away", f"{server.elsewhere}/npm/away/-/tiny-1.0.0.tgz")
    assert obtain(folder / "away", away) == []
    assert [secret for _, secret in server.asked] == ["Bearer word", None]


def test_time_without_a_byte_ends_a_source(server, folder, monkeypatch):
    monkeypatch.setattr(web, "TIMEOUT", 0.3)
    begun = time.perf_counter()
    assert obtain(folder, server.address(server.paused(DATA)))[0] == "MissingError"
    assert 0.3 <= time.perf_counter() - begun < 5
