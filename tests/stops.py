"""Signals at any moment: what a command must do then, run for real on a loaded machine.

Each function returns what went wrong, a sentence each. The tests run them with small counts, `benchmarks/stress.py`
with full ones.
"""

import contextlib
import hashlib
import json
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from harness import COMMAND, SETTINGS, environment, make_inputs
from PIL import Image

WITHIN = 10.0
"""Seconds from a signal to the end of the command."""
SAID = re.compile(
    r"paintproc: Stopped by SIG\w+; what was finished is kept\. Run the same command again to go on\."
    r"|paintproc: stopped; nothing half-written is left\."
    r"|Regions are found by [\w -]+\.|compiling the stroke kernels .*|tiny: Tiny, .*"
    r"|.*\d+ inputs: .*|\d+ sequences made .*"
)
"""All that a command may say on stderr when a signal stops it, or comes too late."""
PIECES, PIECE = 40, 5000
"""What the dripping server sends: so many pieces of so many bytes, 50 ms apart."""
DATA = pickle.dumps({"a": np.random.default_rng(1).integers(0, 255, PIECES * PIECE).astype(np.uint8)}, protocol=4)
"""A file of weights, as somebody may have published it."""
LOOKING = {"SHIM_BREAK": "few_points", "OMP_NUM_THREADS": 1, "MALLOC_MMAP_THRESHOLD_": 1 << 30,
           "MALLOC_TRIM_THRESHOLD_": 1 << 32}  # fmt: skip
"""Around commands with networks: they end sooner, and so more signals fit into an hour."""
EARLY = [(0.0, 0.8), (0.0, 0.4), (0.0, 0.6), (0.2, 0.7), (0.0, 0.3), (0.5, 0.9)]
"""Parts of their lives in which signals come to them: what comes later is as in a command without networks."""


@dataclass
class Stops:
    """What became of the signals."""

    problems: list[str] = field(default_factory=list)
    ended: Counter[str] = field(default_factory=Counter)
    longest: float = 0.0
    """Most seconds from a signal to the end."""

    def __str__(self) -> str:
        ends = ", ".join(f"{count} {how}" for how, count in sorted(self.ended.items()))
        return f"{sum(self.ended.values())} signals: {ends}; the longest took {self.longest:.1f} s"


@dataclass(frozen=True)
class Case:
    """A command, and whether what it wrote is whole."""

    words: Callable[[Path], list[object]]
    is_whole: Callable[[Path], bool]
    shim: dict[str, object] = field(default_factory=dict)
    scene_cache: bool = True
    """Whether what networks saw may be taken from the cache."""


def generate_case(folder: Path, scene: str = "builtin") -> Case:
    """Paint one small picture, with a film."""
    picture = folder / "picture.png"
    if not picture.exists():
        noise = np.random.default_rng(3).integers(0, 256, (6, 8, 3)).astype(np.uint8)
        Image.fromarray(noise).resize((128, 96), Image.Resampling.BICUBIC).save(picture)

    def words(out: Path) -> list[object]:
        formats = ("--format", "frames", "--format", "mp4", "--duration", 2)
        return ["generate", "-i", picture, "-o", out, "--strokes", 200, "--scene", scene, *formats]

    def is_whole(out: Path) -> bool:
        record = out / "sequence.json"
        return record.exists() and all((out / name).exists() for name in json.loads(record.read_text())["files"])

    return Case(words, is_whole, {} if scene == "builtin" else LOOKING, scene_cache=scene == "builtin")


def synth_case(folder: Path, scene: str = "builtin") -> Case:
    """A small dataset, painted by two workers; with networks, by depth."""
    inputs = folder / "in"
    if not inputs.exists():
        make_inputs(inputs, 4)
    kind = ("strokes", *SETTINGS) if scene == "builtin" else ("layers", *SETTINGS[2:], "--scene", scene)

    def is_whole(out: Path) -> bool:
        return (out / "dataset.json").exists() and (out / "inputs.jsonl").exists()

    def words(out: Path) -> list[object]:
        return ["synth", kind[0], inputs, "-o", out, *kind[1:], "--workers", 2]

    return Case(words, is_whole, {} if scene == "builtin" else LOOKING, scene_cache=scene == "builtin")


def weights_case(address: str) -> Case:
    """Weights that come drop by drop, and are converted by a process of their own."""
    shim = {"SHIM_ADDRESS": address, "SHIM_SHA256": hashlib.sha256(DATA).hexdigest(), "SHIM_SIZE": len(DATA)}
    return Case(
        lambda out: ["weights", "get", "tiny", "--weights-dir", out],
        lambda out: (out / "tiny" / "tiny.safetensors").exists(),
        {"SHIM_BREAK": "tiny_weights", **shim},
    )


class _Dripping(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()
        with contextlib.suppress(OSError):
            for begin in range(0, len(DATA), PIECE):
                self.wfile.write(DATA[begin : begin + PIECE])
                self.wfile.flush()
                time.sleep(0.05)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def dripping_server() -> Iterator[str]:
    """The address of a server on this machine that sends a file in small pieces."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Dripping)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/tiny.pth"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def load(processes: int) -> Iterator[None]:
    """Keep the processors busy."""
    code = "import os; os.nice(5)\nwhile True: pass"
    busy = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def listens(process: int) -> bool:
    """Whether a process catches SIGTERM: before that it is the interpreter that starts."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def marked(mark: str, seconds: float = 3.0) -> list[int]:
    """Processes with this mark in their environment that are still there after a while, in whatever session."""
    end = time.monotonic() + seconds
    while True:
        found = []
        for place in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                running = (place.parent / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
                if running and f"STOPS_MARK={mark}\0".encode() in place.read_bytes():
                    found.append(int(place.parent.name))
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.05)


def run_case(
    case: Case, place: Path, moment: float | None, *, group: bool = False, within: float = WITHIN, **shim: object
) -> tuple[list[str], str, float]:
    """Run a command in the new folder `place`, with a signal after `moment` seconds; without, it sends one itself, or
    none. What went wrong, how it ended, and the seconds that took after the signal, or in all.
    """
    place.mkdir(parents=True)
    out, temporary, mark = place / "out", place / "tmp", f"{place.parent.name}-{place.name}"
    temporary.mkdir()
    breaks = ",".join(str(named["SHIM_BREAK"]) for named in (case.shim, shim) if named.get("SHIM_BREAK"))
    around = {**case.shim, **shim, "SHIM_BREAK": breaks, "STOPS_MARK": mark, "TMPDIR": temporary}
    if not case.scene_cache:
        kernels = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "paintproc", "kernels")
        around = {"NUMBA_CACHE_DIR": kernels, "XDG_CACHE_HOME": place / "cache"} | around
    words = [str(word) for word in (COMMAND, *case.words(out))]
    with (place / "stderr").open("wb") as errors:
        process = subprocess.Popen(
            words, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True, env=environment(**around)
        )
        if moment is not None:
            while process.poll() is None and not listens(process.pid):
                time.sleep(0.001)
            time.sleep(moment)
        begun = time.monotonic()
        if moment is not None and process.poll() is None:
            (os.killpg if group else os.kill)(process.pid, signal.SIGTERM)
        problems = []
        try:
            process.wait(within if moment is not None else 400)
        except subprocess.TimeoutExpired:
            problems.append(f"it did not end within {within:g} s")
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        taken = time.monotonic() - begun
    problems += _look_around(case, place, out, process.returncode)
    for number in marked(mark):
        problems.append(f"process {number} is left")
        with contextlib.suppress(OSError):
            os.kill(number, signal.SIGKILL)
    return problems, f"with {process.returncode}", taken


def _look_around(case: Case, place: Path, out: Path, code: int) -> list[str]:
    """What is wrong with what an ended command said and left."""
    problems = []
    if code not in (75, 0):
        problems.append(f"it ended with {code}")
    if code == 0 and not case.is_whole(out):
        problems.append("it ended with 0, and the result is not whole")
    said = (place / "stderr").read_text(errors="replace")
    problems += [f"it said: {line[:200]}" for line in said.splitlines() if not SAID.fullmatch(line)][:3]
    if said.count("paintproc: ") > 1 or (code == 75 and "topped" not in said):
        problems.append(f"it said: {said[-300:]}")
    left = [path for path in place.rglob("*") if path.name.endswith("-part") or path.match("tmp/*paintproc*")]
    return problems + [f"it left {path.relative_to(place)}" for path in left[:3]]


def signals(
    folder: Path, make: Callable[[Path], Case], count: int, *, busy: int = 2, within: float = WITHIN, broken: str = "",
    cold: int = 0, seed: int = 0,
) -> Stops:  # fmt: skip
    """SIGTERM at `count` random moments of a command's life, two commands at once beside `busy` other processes.

    A third of the moments lie in the first part of its life, where it imports, and a sixth near its end. Every `cold`th
    command has no compiled kernels.
    """
    case, stops = make(folder), Stops()
    parts = [(0, 1), (0, 0.4), (0, 1), (0, 1), (0, 0.4), (0.85, 1.05)] if case.scene_cache else EARLY
    with load(busy), ThreadPoolExecutor(2) as pool:
        lives = [pool.submit(run_case, case, Path(tempfile.mkdtemp(dir=folder)) / "whole", None) for _ in range(2)]
        for whole in lives:
            if whole.result()[:2] != ([], "with 0"):
                raise RuntimeError(f"the undisturbed run: {whole.result()}")
        life = max(whole.result()[2] for whole in lives)

        def strike(number: int) -> tuple[list[str], str, float]:
            chance = random.Random(seed * 100_000 + number)
            first, last = parts[number % len(parts)]
            place = Path(tempfile.mkdtemp(dir=folder)) / f"{os.getpid()}-{number}"
            more: dict[str, object] = {"SHIM_BREAK": broken}
            if cold and number % cold == cold - 1:
                more |= {"NUMBA_CACHE_DIR": place / "kernels", "XDG_CACHE_HOME": place / "cache"}
                last *= 2
            moment = chance.uniform(first, last) * life
            found, how, taken = run_case(case, place, moment, group=number % 4 == 3, within=within, **more)
            shutil.rmtree(place.parent, ignore_errors=True)
            return [f"signal {number} after {moment:.2f} s: {text}" for text in found], how, taken

        for found, how, taken in pool.map(strike, range(count)):
            stops.problems += found
            stops.ended[how] += 1
            stops.longest = max(stops.longest, taken)
    return stops


STRIKES = {
    "generate": (
        "threading:Thread.start:1", "threading:Thread.start:2", "threading:Thread.start:3", "os:mkdir:1",
        "os:rename:1", "os:fsync:3", "subprocess:Popen.__init__:1", "subprocess:Popen.wait:1",
        "numba.core.caching:IndexDataCacheFile.load:2", "numba.core.caching:CompileResultCacheImpl.rebuild:1",
        "shutil:rmtree:1",
        "PIL.Image:open:1", "PIL.Image:Image.save:2", "paintproc.strokes.optimize:Work.draw:1",
    ),
    "synth": (
        "threading:Thread.start:1", "os:mkdir:1", "os:link:1", "multiprocessing.process:BaseProcess.start:1",
        "multiprocessing.process:BaseProcess.start:2", "multiprocessing.connection:wait:3",
        "multiprocessing.process:BaseProcess.terminate:1",
    ),
    "weights": (
        "socket:socket.connect:1", "http.client:HTTPResponse.read1:3", "subprocess:Popen.__init__:1",
        "os:mkdir:2", "os:rename:1", "os:replace:1", "shutil:rmtree:1",
    ),
    "networks": (
        "safetensors.torch:load_file:1", "torch.nn:Module.load_state_dict:1", "torch:inference_mode.__enter__:1",
        "timm:create_model:1", "torch.nn.functional:conv2d:5", "torch:as_tensor:3",
        "segment_anything.predictor:SamPredictor.set_image:1", "numpy:savez_compressed:1",
    ),
}  # fmt: skip
"""Calls at which a command sends itself a signal: module, name, and the how manieth call. Chance seldom finds them."""


def strikes(
    folder: Path,
    make: Callable[[Path], Case],
    calls: tuple[str, ...],
    *,
    whens: tuple[str, ...] = ("before", "after", "twice"),
    broken: str = "",
) -> Stops:
    """A command sends itself SIGTERM in chosen calls: before the call, after it, and twice."""
    case, stops = make(folder), Stops()
    cases = [(call, when) for call in calls for when in whens]

    def strike(number: int) -> tuple[list[str], str, float]:
        call, when = cases[number]
        place = Path(tempfile.mkdtemp(dir=folder)) / f"{os.getpid()}-{number}-strike"
        shim = {"SHIM_STRIKE": call, "SHIM_WHEN": when, "SHIM_STRUCK": place / "struck", "SHIM_BREAK": broken}
        found, how, _ = run_case(case, place, None, **shim)
        since = time.time() - (place / "struck").stat().st_mtime if (place / "struck").exists() else 0.0
        if not (place / "struck").exists():
            found.append("this call never came")
        if since > WITHIN:
            found.append(f"it took {since:.1f} s")
        shutil.rmtree(place.parent, ignore_errors=True)
        return [f"{when} {call}: {text}" for text in found], how, since

    with ThreadPoolExecutor(2) as pool:
        for found, how, taken in pool.map(strike, range(len(cases))):
            stops.problems += found
            stops.ended[how] += 1
            stops.longest = max(stops.longest, taken)
    return stops
