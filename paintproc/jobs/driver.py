"""The process that speaks with Ray: it keeps slots, gives them items, and replaces slots that are lost.

A slot is an actor that keeps one worker process of `local.py` on its machine. Kernels and networks stay loaded there,
and a worker that dies, hangs or runs out of memory costs one item as it does locally. Where slots are, and that one is
lost, Ray says. Items, `work` and results pass through as bytes, so that this process and the actors import little.
"""

import contextlib
import functools
import logging
import os
import pickle
import queue
import secrets
import shutil
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from paintproc.jobs import DIED, GRACE, TRIES, Engine, local
from paintproc.version import __version__

LOST_TRIES = 4
"""How often an item is tried if its slot is lost each time."""
FAILED_STARTS = 3
"""After so many slots in a row that did not start, no more are tried."""
ROOM_PATIENCE = 60.0
"""Seconds to wait for a machine that has room for a slot, such as one that a cluster starts on demand."""
SPARE = 30.0
"""Seconds beyond the time limit after which a slot that does not answer is given up."""
VERBOSE = "--verbose shows what Ray says."
STORE = 80 << 20
"""Bytes of shared memory of a Ray of our own; items and results are small."""


@dataclass(frozen=True)
class Setup:
    """What the driver and the slots must know."""

    work: bytes
    engine: Engine
    memory: int | None
    time_limit: float
    threads: int
    folder: str
    """The current folder, which relative paths in items are relative to."""
    path: tuple[str, ...]
    """Where modules are looked for, beside where a machine finds its own."""
    version: str = __version__


@dataclass
class Task:
    """An item on its way."""

    number: int
    item: bytes
    died: int = 0
    """How many workers died of it."""
    lost: int = 0
    """How many slots were lost with it."""


class Slot:
    """An actor: one worker process, kept from item to item."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.worker: local._Worker | None = None
        # a worker imports the program that starts it: here that is Ray's, which it has no use for
        vars(sys.modules["__main__"]).pop("__file__", None)
        sys.path += [place for place in setup.path if place not in sys.path]
        if setup.engine.address is None:
            # Ray's own limit of threads; a worker here has the number of threads of a local one
            os.environ.pop("OMP_NUM_THREADS", None)

    def look(self) -> str:
        """What keeps this machine from working on items; empty if nothing does."""
        name = socket.gethostname()
        if self.setup.version != __version__:
            return f"{name} has paintproc {__version__}, and here it is {self.setup.version}."
        try:
            os.chdir(self.setup.folder)
        except OSError:
            return f"{name} has no folder {self.setup.folder}, where this command runs."
        return ""

    def do(self, item: bytes) -> tuple[Any, str, int]:
        """Answer of the worker, as in `local.Outcome`: the result in bytes, an error, an exit code."""
        worker = self.worker
        if worker is None or not worker.alive or not worker.process.is_alive():
            work = functools.partial(do_packed, self.setup.work)
            worker = self.worker = local._Worker(work, self.setup.memory, self.setup.threads)
        worker.give(item, 1)
        while (outcome := worker.outcome(self.setup.time_limit)) is None:
            wait([worker.connection, worker.process.sentinel], timeout=0.5)
        return outcome.result, outcome.error, outcome.exit_code

    def stop(self) -> None:
        """Ask the worker to stop what it does; called while it works."""
        if self.worker is not None and self.worker.alive:
            self.worker.process.terminate()
            self.worker.process.join(GRACE)


def do_packed(work: bytes, item: bytes) -> bytes:
    """In a worker: unpack, work, pack the result."""
    return pickle.dumps(pickle.loads(work)(pickle.loads(item)))


class _Failed(Exception):
    """Ray is of no use: a sentence and a hint for the user."""


def first_line(error: Exception) -> str:
    return next(iter(_lines(error)), type(error).__name__)


def last_line(error: Exception) -> str:
    """Of what Ray says about an actor that did not start, the error itself is the last line."""
    return next(reversed(_lines(error)), type(error).__name__)


def _lines(error: Exception) -> list[str]:
    return [line.strip() for line in str(error).splitlines() if line.strip()]


def drive(connection: Connection, setup: Setup, scratch: str | None) -> None:
    """What the driver process does, until the other side closes the connection or dies.

    It says how many items can be worked on at once (joined), what became of each item (done), and that Ray is of no use
    (failed).
    """
    # a session of its own is out of reach of signals to the whole group, as Ctrl-C, and tells which processes are Ray's
    if hasattr(os, "setsid"):
        os.setsid()
    _hush(setup.engine.verbose)
    if setup.engine.address is None:
        # nobody else may use a Ray of our own; if no token is named, Ray puts one into the user's home
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    given: queue.SimpleQueue[tuple[int, bytes] | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, given), daemon=True).start()
    try:
        with _joined(setup, scratch) as ray:
            _run(ray, setup, given, connection.send)
    except Exception as error:
        said = error.args if isinstance(error, _Failed) else (f"Ray failed: {first_line(error)}", VERBOSE)
        with contextlib.suppress(OSError):
            connection.send(("failed", *said))
        if setup.engine.verbose:
            raise
    finally:
        # the other side does this too, if it lives
        if scratch is not None and not setup.engine.verbose:
            shutil.rmtree(scratch, ignore_errors=True)


def _hush(verbose: bool) -> None:
    """Send what Ray prints to stderr, or nowhere: stdout is data, and stderr is for people."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(2 if verbose else nowhere, 1)
    if not verbose:
        os.dup2(nowhere, 2)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # after so many seconds without an answer a cluster is lost
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "20")


def _listen(connection: Connection, given: "queue.SimpleQueue[tuple[int, bytes] | None]") -> None:
    """Take items as they come, so that the other side never waits; None at the end."""
    try:
        while True:
            given.put(connection.recv())
    except (EOFError, OSError):
        given.put(None)


@contextlib.contextmanager
def _joined(setup: Setup, scratch: str | None) -> Iterator[Any]:
    """Ray, joined at its address or started on this machine."""
    import ray

    engine = setup.engine
    hint = "Is Ray running, and is this machine a part of the cluster? `ray status` tells."
    how: dict[str, Any] = {"address": engine.address}
    if engine.address is None:
        how = {"address": "local", "num_cpus": engine.workers, "object_store_memory": STORE,
               "include_dashboard": False, "_temp_dir": scratch, "_node_ip_address": "127.0.0.1"}  # fmt: skip
    host, _, port = (engine.address or "").rpartition(":")
    try:
        if port.isdigit():
            # Ray itself would try for most of a minute
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(
            **how, log_to_driver=engine.verbose, logging_level=logging.INFO if engine.verbose else logging.ERROR,
            namespace=f"paintproc-{os.getpid()}",
        )  # fmt: skip
    except Exception as error:
        reason = first_line(error)
        if engine.address is None:
            raise _Failed(f"Ray could not be started: {reason}", VERBOSE) from error
        raise _Failed(f"No Ray cluster was joined at {engine.address}: {reason}", hint) from error
    # Ray has put a handler of its own there
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield ray
    finally:
        ray.shutdown()


def _run(ray: Any, setup: Setup, given: Any, send: Callable[[tuple[Any, ...]], None]) -> None:
    crew = _Crew(ray, setup, send)
    send(("joined", crew.most))
    try:
        while True:
            with contextlib.suppress(queue.Empty):
                while True:
                    message = given.get(block=not crew.busy(), timeout=0.1)
                    if message is None:
                        return
                    crew.waiting.append(Task(*message))
            crew.step()
    finally:
        crew.stop()


@dataclass
class _Place:
    """A slot as the driver sees it: what it was asked last, and since when."""

    actor: Any
    call: Any
    """The answer that it owes; None if it is idle."""
    task: Task | None = None
    begun: float = 0.0
    started: bool = False


class _Crew:
    """The slots, and the items that wait for one."""

    def __init__(self, ray: Any, setup: Setup, send: Callable[[tuple[Any, ...]], None]) -> None:
        self.ray, self.setup, self.send = ray, setup, send
        self.waiting: deque[Task] = deque()
        self.places: list[_Place] = []
        self.failed_starts, self.last_room = 0, time.monotonic()
        engine = setup.engine
        self.asked: dict[str, float] = {"CPU": 1 if engine.address is None else setup.threads}
        if engine.gpus:
            self.asked["GPU"] = engine.gpus
        if engine.memory and engine.address is not None:
            self.asked["memory"] = engine.memory
        self.kind = ray.remote(Slot).options(
            num_cpus=self.asked["CPU"], num_gpus=engine.gpus, memory=self.asked.get("memory"), max_concurrency=2,
            max_restarts=0, max_task_retries=0,
        )  # fmt: skip
        total = ray.cluster_resources()
        self.most = engine.workers or max(1, int(min(total.get(name, 0) / n for name, n in self.asked.items())))

    def busy(self) -> bool:
        return bool(self.waiting) or any(place.call is not None for place in self.places)

    def step(self) -> None:
        """Give items to idle slots, start slots that are needed, and take answers, for at most a tenth of a second."""
        for place in self.places:
            if place.call is None and place.started and self.waiting:
                task = self.waiting.popleft()
                place.task, place.begun, place.call = task, time.monotonic(), place.actor.do.remote(task.item)
        starting = sum(not place.started for place in self.places)
        while len(self.places) < self.most and starting < len(self.waiting):
            actor = self.kind.remote(self.setup)
            self.places.append(_Place(actor, actor.look.remote()))
            starting += 1
        self._check_room()
        calls = {place.call: place for place in self.places if place.call is not None}
        if not calls:
            return
        done, _ = self.ray.wait(list(calls), num_returns=1, timeout=0.1)
        for call in done:
            self._answered(calls[call])
        now = time.monotonic()
        for place in list(self.places):
            if place.task is not None and now - place.begun > self.setup.time_limit + SPARE:
                self._drop(place)
                self._finish(place.task, None, f"it took longer than {self.setup.time_limit:g} s", 1)

    def _answered(self, place: _Place) -> None:
        """A slot has answered, or is lost."""
        try:
            answer = self.ray.get(place.call)
        except self.ray.exceptions.RayError as error:
            self._lost(place, error)
            return
        place.call = None
        if not place.started:
            if answer:
                raise _Failed(answer, "All machines of a Ray cluster need the same installation and shared folders.")
            place.started, self.failed_starts = True, 0
            return
        assert place.task is not None
        task, place.task = place.task, None
        result, text, code = answer
        if code == DIED:
            task.died += 1
            if task.died < TRIES:
                self.waiting.append(task)
                return
        self._finish(task, result, text, 1 if code == DIED else code)

    def _lost(self, place: _Place, error: Exception) -> None:
        """Replace a slot whose machine or process is lost; its item is tried elsewhere."""
        task = self._drop(place)
        if task is None:
            self.failed_starts += 1
            if self.failed_starts >= FAILED_STARTS:
                raise _Failed(f"Ray's workers do not start: {last_line(error)}", VERBOSE)
            return
        task.lost += 1
        if task.lost < LOST_TRIES:
            self.waiting.append(task)
        else:
            self._finish(task, None, f"its process or machine was lost {task.lost} times", 1)

    def _drop(self, place: _Place) -> Task | None:
        self.places.remove(place)
        with contextlib.suppress(Exception):
            self.ray.kill(place.actor)
        return place.task

    def _finish(self, task: Task, result: bytes | None, error: str, code: int) -> None:
        self.send(("done", task.number, result, error, code))

    def _check_room(self) -> None:
        """_Failed if no machine has had room for a slot for a while."""
        if any(place.started for place in self.places) or not self.places:
            self.last_room = time.monotonic()
        elif time.monotonic() - self.last_room > ROOM_PATIENCE:
            alive = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
            if any(all(node.get(name, 0) >= n for name, n in self.asked.items()) for node in alive):
                # there is room, but others use it
                self.last_room = time.monotonic()
                return
            named = {"CPU": "CPU", "GPU": "GPU", "memory": "GB of memory"}
            wanted = ", ".join(
                f"{n / (1e9 if name == 'memory' else 1):g} {named[name]}" for name, n in self.asked.items()
            )
            raise _Failed(f"No machine of the Ray cluster has room for a worker, which asks for {wanted}.", "")

    def stop(self) -> None:
        """Ask all workers to stop, and end the slots."""
        with contextlib.suppress(Exception):
            started = [place for place in self.places if place.started]
            calls = [place.actor.stop.remote() for place in started]
            if calls:
                self.ray.wait(calls, num_returns=len(calls), timeout=GRACE)
        for place in self.places:
            with contextlib.suppress(Exception):
                self.ray.kill(place.actor)
