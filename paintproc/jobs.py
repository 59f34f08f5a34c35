"""Many items in several processes. A worker that dies, hangs or runs out of memory costs one item.

No worker outlives its parent. Results come in the order in which they are finished; what is made must not depend on
that order, nor on the number of workers.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from paintproc.errors import PaintprocError

Item = TypeVar("Item")

TIME_LIMIT = 600.0
"""Seconds for one item; after that its worker is killed."""
TRIES = 2
"""How often an item is tried if its worker dies: the machine may have been short of memory for a moment."""
GRACE = 5.0
"""Seconds between asking a worker to stop and killing it."""
WATCHED = 63
"""How many handles Windows can wait for at once."""
DIED = -1
"""Exit code of an outcome whose worker died; callers see 1."""


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

    `work` is a function of a module; it, the items and the results can be pickled. A worker that dies or takes longer
    than `time_limit` seconds for an item is replaced; if it died, the item is tried once more. `memory` bounds each
    worker's address space in bytes, where the system can do that. `check` is called about ten times a second and may
    raise to stop. When the iteration ends, for any reason, all workers are asked to stop, then killed.
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
            handles: list[Any] = [
                *(worker.connection for worker in crew),
                *(worker.process.sentinel for worker in crew),
            ]
            wait(handles[:WATCHED], timeout=0.1)
            for worker in crew:
                outcome = worker.outcome(time_limit)
                if outcome is None:
                    continue
                if outcome.exit_code == DIED and worker.tries < TRIES:
                    waiting.append((outcome.item, worker.tries + 1))
                else:
                    yield outcome if outcome.exit_code != DIED else replace(outcome, exit_code=1)
    finally:
        for worker in crew:
            worker.process.terminate()
        end = time.monotonic() + GRACE
        for worker in crew:
            worker.process.join(max(0.0, end - time.monotonic()))
            worker.kill()


class _Worker:
    """A process and the item it works on."""

    def __init__(self, work: Callable[[Any], Any], memory: int | None) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work, memory), daemon=True)
        self.process.start()
        theirs.close()
        self.task: tuple[Any] | None = None
        self.tries, self.begun, self.alive = 0, 0.0, True

    def give(self, item: Any, tries: int) -> None:
        self.task, self.tries, self.begun = (item,), tries, time.monotonic()
        with contextlib.suppress(OSError):
            # if the worker has died, `outcome` finds that out
            self.connection.send(self.task)

    def outcome(self, time_limit: float) -> Outcome[Any] | None:
        """What became of its item; None while it works, or has no item."""
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


def limit_memory(size: int) -> None:
    """Bound this process's address space to `size` bytes, where the system can do that: not on Windows or macOS."""
    with contextlib.suppress(ImportError, AttributeError, ValueError, OSError):
        import resource

        allowed = resource.getrlimit(resource.RLIMIT_AS)[1]
        if allowed != resource.RLIM_INFINITY:
            size = min(size, allowed)
        resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _serve(connection: Connection, work: Callable[[Any], Any], memory: int | None) -> None:
    """What a worker does: one item after the other, until the parent closes the connection."""
    # these signals go to the whole group of processes, as Ctrl-C does: the parent decides what to do about them
    for name in ("SIGINT", "SIGUSR1", "SIGHUP", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    # this one comes from the parent: clean up and exit
    signal.signal(signal.SIGTERM, _leave)
    _die_with_parent()
    if memory is not None:
        limit_memory(memory)
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
    # code that calls back into Python would print this exception and go on until it is killed
    sys.unraisablehook = lambda what: None
    raise SystemExit(75)


def _die_with_parent() -> None:
    """End this process when its parent dies: by the system on Linux, elsewhere by a thread that waits for that."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    try:
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    except (ImportError, OSError, TypeError, AttributeError):
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()
        return
    if not parent.is_alive():
        # it died before the system was asked
        os._exit(1)


def _exit_after(parent: Any) -> None:
    parent.join()
    os._exit(1)
