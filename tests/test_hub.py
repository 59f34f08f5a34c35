"""Weights of a model hub: in the cache of huggingface_hub, whole or not at all. The hub is played by a server here."""

import dataclasses
import hashlib
import importlib.util
import json
import os
import random
import subprocess
import sys
from http.server import BaseHTTPRequestHandler

import pytest
from test_downloads import Served
from test_weight_sources import Server, left, plain_surroundings
from test_weights import run, start

from paintproc.weights.hub import git_sha1
from paintproc.weights.manifest import Weight, WeightFile

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("huggingface_hub") is None or importlib.util.find_spec("torch") is None,
    reason="huggingface_hub or torch is not installed: pip install 'paintproc[models]'",
)

REVISION = "0123456789" * 4
LARGE = random.Random(4).randbytes(400)
SMALL = b'{"a": 1}'


@dataclasses.dataclass
class Hub:
    """A hub with one repository, whose large files are on another host."""

    server: Server
    contents: dict[str, Served] = dataclasses.field(default_factory=dict)

    def add(self, name: str, data: bytes, large: bool = False) -> None:
        place = f"/own/name/resolve/{REVISION}/{name}"
        if not large:
            digest = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            self.server.pages[place] = lambda request: self._small(request, data, digest)
            return
        digest = hashlib.sha256(data).hexdigest()
        page = self.contents[name] = Served(data, etag=f'"{digest[:20]}"')
        self.server.pages[f"/content/{digest}"] = page
        self.server.pages[place] = lambda request: self._large(request, digest, len(data))

    def _small(self, request: BaseHTTPRequestHandler, data: bytes, digest: str) -> None:
        request.send_response(200)
        request.send_header("X-Repo-Commit", REVISION)
        request.send_header("ETag", f'"{digest}"')
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(data)

    def _large(self, request: BaseHTTPRequestHandler, digest: str, size: int) -> None:
        request.send_response(302)
        request.send_header("X-Repo-Commit", REVISION)
        request.send_header("X-Linked-Etag", f'"{digest}"')
        request.send_header("X-Linked-Size", str(size))
        request.send_header("Location", f"{self.server.elsewhere}/content/{digest}")
        request.send_header("Content-Length", "0")
        request.end_headers()

    def weight(self, *names: str, **known: str) -> Weight:
        files = tuple(WeightFile(name, known.get("sha256"), None, (), known.get("kept_as", "")) for name in names)
        return Weight("tiny", "Tiny", "MIT", files, "own/name", REVISION)


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    plain_surroundings(monkeypatch, tmp_path / "home")
    monkeypatch.delenv("XDG_CACHE_HOME")


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "home" / "hub" / "hub" / "models--own--name"


@pytest.fixture
def snapshot(cache):
    return cache / "snapshots" / REVISION


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "weights"


@pytest.fixture
def hub(monkeypatch):
    with Server() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        yield Hub(server)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a small text encoder of random weights, as its authors would publish it."""
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    network = CLIPTextModel(CLIPTextConfig(vocab_size=20, max_position_embeddings=8, **sizes))
    folder = tmp_path_factory.mktemp("model")
    network.save_pretrained(folder)
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    return folder


LOAD = """
import sys
from transformers import CLIPTextModel
place, *revision = sys.argv[1:]
loaded, report = CLIPTextModel.from_pretrained(
    place, local_files_only=True, output_loading_info=True, **({"revision": revision[0]} if revision else {})
)
print(float(sum(value.double().sum() for value in loaded.state_dict().values())), report["missing_keys"])
"""


def load(*arguments: object) -> str:
    """The sum of a model's weights, as `from_pretrained` loads it without a hub."""
    command = [sys.executable, "-c", LOAD, *map(str, arguments)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


def test_from_pretrained_loads_what_was_got(hub, folder, snapshot, model):
    for name in ("config.json", "model.safetensors"):
        hub.add(name, (model / name).read_bytes(), name != "config.json")
    tiny = hub.weight("config.json", "model.safetensors")
    done = run("weights", "get", "tiny", "--weights-dir", folder, weights=[tiny])
    assert (done.returncode, done.stdout) == (0, f"{snapshot}\n"), done.stderr
    assert done.stderr == "tiny: Tiny, size not known; licence: MIT\n" and not folder.exists()
    assert load("own/name", REVISION) == load(model)
    assert run("weights", "path", "tiny", "--weights-dir", folder, weights=[tiny]).stdout == f"{snapshot}\n"
    assert run("weights", "verify", "--weights-dir", folder, weights=[tiny]).stdout == f"{snapshot}\n"
    listed = run("weights", "list", "--json", "--weights-dir", folder, weights=[tiny]).stdout
    assert json.loads(listed)["state"] == "here"


def test_what_others_have_brought_is_found(hub, folder, snapshot):
    hub.add("a.onnx", LARGE, large=True)
    hub.add("x/config.json", SMALL)
    tiny = hub.weight("x/config.json", "a.onnx")
    code = f"import huggingface_hub as h; [h.hf_hub_download('own/name', n, revision={REVISION!r}) for n in {{}}]"
    for names, after in ((["a.onnx"], "missing"), (["x/config.json"], "here")):
        subprocess.run([sys.executable, "-c", code.format(names)], check=True, stderr=subprocess.DEVNULL)
        listed = run("weights", "list", "--json", "--weights-dir", folder, weights=[tiny]).stdout
        assert json.loads(listed)["state"] == after
    hub.server.asked.clear()
    done = run("weights", "get", "tiny", "--weights-dir", folder, weights=[tiny])
    assert done.returncode == 0 and "there already" in done.stderr and hub.server.asked == []
    assert done.stdout == f"{snapshot}\n"


@pytest.mark.parametrize("kind", ["large", "small"])
def test_verify_notices_one_byte(hub, folder, snapshot, kind):
    """Also where the manifest knows no digest: the cache names content by it."""
    hub.add("a.onnx", LARGE, large=True)
    hub.add("config.json", SMALL)
    tiny = hub.weight("config.json", "a.onnx")
    assert run("weights", "get", "tiny", "--weights-dir", folder, weights=[tiny]).returncode == 0
    path = snapshot / ("a.onnx" if kind == "large" else "config.json")
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    done = run("weights", "verify", "--weights-dir", folder, weights=[tiny])
    assert done.returncode == 3 and "not as published" in done.stderr


def test_a_download_that_was_cut_goes_on(hub, folder, snapshot, cache):
    hub.add("a.onnx", LARGE, large=True)
    page, tiny = hub.contents["a.onnx"], hub.weight("a.onnx")
    page.cuts = [150, 0, 0, 0]
    fast = "from paintproc.weights import download; download.PAUSES = (0.0, 0.0, 0.0)"
    done = run("weights", "get", "tiny", "--weights-dir", folder, weights=[tiny], more=fast)
    assert done.returncode == 4 and "broke off after 150 of 400 bytes" in done.stderr
    assert not (snapshot / "a.onnx").exists()
    page.asked.clear()
    done = run("weights", "get", "tiny", "--weights-dir", folder, weights=[tiny])
    assert done.returncode == 0 and (snapshot / "a.onnx").read_bytes() == LARGE
    assert page.asked == [("bytes=150-", page.etag)]
    assert left(cache / "blobs") == [hashlib.sha256(LARGE).hexdigest()]


@pytest.mark.parametrize("place", ["environment", "file"])
def test_the_token_stays_with_the_hub(hub, folder, tmp_path, monkeypatch, place):
    if place == "environment":
        monkeypatch.setenv("HF_TOKEN", "word")
    else:
        (tmp_path / "home" / "hub").mkdir()
        (tmp_path / "home" / "hub" / "token").write_text("word\n")
    hub.add("a.onnx", LARGE, large=True)
    hub.add("config.json", SMALL)
    tiny = hub.weight("config.json", "a.onnx")
    assert run("weights", "get", "tiny", "--weights-dir", folder, weights=[tiny]).returncode == 0
    sent = {(path.split("/")[1], secret) for path, secret in hub.server.asked}
    assert sent == {("own", "Bearer word"), ("content", None)}


@pytest.mark.parametrize("how", ["option", "environment"])
def test_offline_asks_nobody(hub, folder, monkeypatch, how):
    hub.add("a.onnx", LARGE, large=True)
    if how == "environment":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    more = ["--offline"] if how == "option" else []
    done = run("weights", "get", "tiny", *more, "--weights-dir", folder, weights=[hub.weight("a.onnx")])
    assert done.returncode == 4 and "offline" in done.stderr.lower() and hub.server.asked == []


def test_without_the_library(hub, folder):
    hidden = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "huggingface_hub" else find(name, *rest)
"""
    tiny = hub.weight("a.onnx")
    done = run("weights", "get", "tiny", "--weights-dir", folder, weights=[tiny], more=hidden)
    assert done.returncode == 4 and "paintproc[models]" in done.stderr and done.stderr.count("\n") == 2
    for what in ("list", "path", "verify"):
        assert run("weights", what, "--weights-dir", folder, weights=[tiny], more=hidden).returncode == 0


def spoiled(hub: Hub, how: str) -> Weight:
    hub.add("a.onnx", LARGE, large=True)
    hub.add("config.json", SMALL)
    if how == "large":
        hub.contents["a.onnx"].data = LARGE[::-1]
    if how == "small":
        wrong = hashlib.sha1(b"other").hexdigest()
        place = f"/own/name/resolve/{REVISION}/config.json"
        hub.server.pages[place] = lambda request: hub._small(request, SMALL, wrong)
    if how == "not the manifest's":
        return hub.weight("a.onnx", sha256="0" * 64)
    return hub.weight("config.json", "a.onnx")


@pytest.mark.parametrize("how", ["large", "small", "not the manifest's"])
def test_another_file_is_refused_and_removed(hub, folder, cache, how):
    tiny = spoiled(hub, how)
    done = run("weights", "get", "tiny", "--weights-dir", folder, weights=[tiny])
    assert done.returncode == 3 and "Traceback" not in done.stderr
    wrong = {"large": "a.onnx", "small": "config.json"}.get(how, "a.onnx")
    assert not list(cache.rglob(wrong))
    assert all(git_sha1(path) == path.name for path in cache.glob("blobs/*"))


@pytest.mark.parametrize("fault", [401, 403, 404, 429, 500, "gated", "refused", "no size", "garbage"])
def test_a_hub_that_does_not_give_it(hub, folder, monkeypatch, fault):
    hub.add("a.onnx", LARGE, large=True)
    place = f"/own/name/resolve/{REVISION}/a.onnx"
    plain = hub.server.pages[place]

    def page(request: BaseHTTPRequestHandler) -> None:
        if isinstance(fault, int):
            request.send_error(fault)
        elif fault == "no size":
            send = request.send_header
            request.send_header = lambda name, value: None if name == "X-Linked-Size" else send(name, value)
            plain(request)
        elif fault == "gated":
            request.send_response(403)
            request.send_header("X-Error-Code", "GatedRepo")
            request.end_headers()
        else:
            request.wfile.write(b"hello")

    hub.server.pages[place] = page
    monkeypatch.setenv("HF_TOKEN", "secret-word")
    if fault == "refused":
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    done = run("weights", "get", "tiny", "-q", "--weights-dir", folder, weights=[hub.weight("a.onnx")])
    assert done.returncode == 4 and done.stderr.count("\n") == 1 and "secret-word" not in done.stderr
    assert "a.onnx of tiny cannot be had" in done.stderr
    reason = {"gated": "has accepted its license", "no size": "does not say how large"}
    assert reason.get(fault, "") in done.stderr


def test_foreign_files_are_converted_into_the_folder(hub, folder, model):
    hub.add("config.json", (model / "config.json").read_bytes())
    hub.add("pytorch_model.bin", (model / "pytorch_model.bin").read_bytes(), large=True)
    files = (
        WeightFile("config.json", None, None),
        WeightFile("pytorch_model.bin", None, None, (), "model.safetensors"),
    )
    data = (model / "pytorch_model.bin").read_bytes()
    files = (files[0], dataclasses.replace(files[1], sha256=hashlib.sha256(data).hexdigest()))
    tiny = Weight("tiny", "Tiny", "MIT", files, "own/name", REVISION)
    done = run("weights", "get", "tiny", "--weights-dir", folder, weights=[tiny])
    assert (done.returncode, done.stdout) == (0, f"{folder / 'tiny'}\n"), done.stderr
    assert left(folder) == ["tiny/config.json", "tiny/model.safetensors"]
    assert run("weights", "verify", "--weights-dir", folder, weights=[tiny]).returncode == 0
    assert load(folder / "tiny") == load(model)


def test_a_copy_in_the_folder_comes_first(hub, folder):
    (folder / "tiny").mkdir(parents=True)
    (folder / "tiny" / "config.json").write_bytes(SMALL)
    hub.add("config.json", SMALL)
    hub.add("a.onnx", LARGE, large=True)
    tiny = hub.weight("config.json", "a.onnx")
    done = run("weights", "get", "tiny", "--weights-dir", folder, weights=[tiny])
    assert (done.returncode, done.stdout) == (0, f"{folder / 'tiny'}\n"), done.stderr
    assert left(folder) == ["tiny/a.onnx", "tiny/config.json"]
    assert not any("config.json" in path for path, _ in hub.server.asked)


def test_several_at_once(hub, folder, snapshot, cache):
    hub.add("a.onnx", LARGE, large=True)
    hub.contents["a.onnx"].pause = 0.1
    tiny = hub.weight("a.onnx")
    running = [start("weights", "get", "tiny", "--weights-dir", folder, weights=[tiny]) for _ in range(4)]
    ended = [process.communicate(timeout=60) for process in running]
    assert [process.returncode for process in running] == [0] * 4, ended
    assert (snapshot / "a.onnx").read_bytes() == LARGE
    assert left(cache / "blobs") == [hashlib.sha256(LARGE).hexdigest()]
