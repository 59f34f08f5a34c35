"""Many items in several processes: a dead, stuck or swollen worker costs one item, and none outlives its parent.

The order of the results is that of their finishing; whatever is made must not depend on it, nor on
the number of workers.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from paintproc.errors import PaintprocError

Item = TypeVar("Item")

TIME_LIMIT = 600.0
"""Seconds after which a worker is taken to be stuck."""
TRIES = 2
"""How often an item is tried whose worker died: a machine may have been short of memory for a moment."""
GRACE = 5.0
"""Seconds a worker has for tidying up when it is told to stop."""


@dataclass(frozen=True)
class Outcome(Generic[Item]):
    """What became of one item: `result`, or a sentence in `error` with its exit code."""

    item: Item
    result: Any = None
    error: str = ""
    exit_code: int = 0


def run_jobs(
    items: Iterable[Item],
    work: Callable[[Item], Any],
    *,
    workers: int = 1,
    time_limit: float = TIME_LIMIT,
    memory: int | None = None,
    check: Callable[[], None] = lambda: None,
) -> Generator[Outcome[Item], None, None]:
    """Do `work` on each item in `workers` processes; every item gives one outcome.

    `work` is a function of a module, and items, results and it can be pickled; they travel between
    these processes alone. A worker that dies or takes longer than `time_limit` seconds for an item is
    replaced, and the item tried once more if it died. `memory` bounds each worker's address space in
    bytes. `check` is called about ten times a second and may raise to stop. However the iteration
    ends, no worker is left: they are asked to stop, then killed.
    """
    waiting = deque((item, 1) for item in items)
    crew: list[_Worker] = []
    try:
        while waiting or any(worker.task for worker in crew):
            check()
            crew = [worker for worker in crew if worker.alive]
            while len(crew) < min(workers, len(waiting) + sum(worker.task is not None for worker in crew)):
                crew.append(_Worker(work, memory))
            for worker in crew:
                if worker.task is None and waiting:
                    worker.give(*waiting.popleft())
            wait([part for worker in crew for part in (worker.connection, worker.process.sentinel)], timeout=0.1)
            for worker in crew:
                outcome = worker.outcome(time_limit)
                if outcome is None:
                    continue
                if outcome.exit_code == DIED and worker.tries < TRIES:
                    waiting.append((outcome.item, worker.tries + 1))
                else:
                    yield outcome if outcome.exit_code != DIED else _said(outcome)
    finally:
        for worker in crew:
            worker.process.terminate()
        end = time.monotonic() + GRACE
        for worker in crew:
            worker.process.join(max(0.0, end - time.monotonic()))
            worker.kill()


DIED = -1


def _said(outcome: Outcome[Item]) -> Outcome[Item]:
    return Outcome(outcome.item, error=outcome.error, exit_code=1)


class _Worker:
    """A process and what it is doing."""

    def __init__(self, work: Callable[[Any], Any], memory: int | None) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work, memory, os.getpid()), daemon=True)
        self.process.start()
        theirs.close()
        self.task: tuple[Any] | None = None
        self.tries, self.begun, self.alive = 0, 0.0, True

    def give(self, item: Any, tries: int) -> None:
        self.task, self.tries, self.begun = (item,), tries, time.monotonic()
        with contextlib.suppress(OSError):
            # a worker that died meanwhile is noticed by its sentinel
            self.connection.send(self.task)

    def outcome(self, time_limit: float) -> Outcome[Any] | None:
        """What became of its item, None while it works or has none."""
        if self.task is None:
            self.alive = self.process.is_alive()
            return None
        (item,) = self.task
        answer: tuple[Any, str, int] | None = None
        with contextlib.suppress(EOFError, OSError):
            if self.connection.poll():
                answer = self.connection.recv()
        if answer is not None:
            self.task = None
            return Outcome(item, *answer)
        if time.monotonic() - self.begun > time_limit:
            self.kill()
            return Outcome(item, error=f"it took longer than {time_limit:g} s", exit_code=1)
        if self.process.is_alive():
            return None
        self.process.join()
        code = self.process.exitcode or 0
        self.kill()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return Outcome(item, error=f"its process ended with {how}", exit_code=DIED)

    def kill(self) -> None:
        self.task, self.alive = None, False
        self.process.kill()
        self.process.join()
        self.connection.close()


def _serve(connection: Connection, work: Callable[[Any], Any], memory: int | None, parent: int) -> None:
    """The worker's life: one item after the other until the parent says nothing more."""
    # what is told to the whole group, as Ctrl-C is: the parent decides; told to stop by it, a worker tidies up first
    for name in ("SIGINT", "SIGUSR1", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    _die_with(parent)
    if memory is not None:
        _bound(memory)
    while True:
        try:
            (item,) = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer = work(item), "", 0
        except PaintprocError as error:
            answer = None, str(error), error.exit_code
        except MemoryError:
            answer = None, "out of memory", 5
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = f"this is a bug: {type(error).__name__}: {error} ({where.name}, line {where.lineno})"
            answer = None, text, 1
        connection.send(answer)


def _leave(*_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # code that calls back into Python would print this, and go on until it is killed
    sys.unraisablehook = lambda what: None
    raise SystemExit(75)


def _die_with(parent: int) -> None:
    """Let the system kill this process when its parent dies, where it can (Linux)."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _bound(memory: int) -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
