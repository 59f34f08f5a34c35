"""Many items in several processes of this machine. A worker that dies, hangs or runs out of memory costs one item.

No worker outlives its parent. Results come in the order in which they are finished; what is made must not depend on
that order, nor on the number of workers.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from typing import Any

from paintproc.errors import PaintprocError
from paintproc.jobs import DIED, GRACE, TIME_LIMIT, TRIES, Item, Outcome
from paintproc.threads import set_thread_count, threads_of_worker

WATCHED = 63
"""How many handles Windows can wait for at once."""


def run_jobs(
    items: Iterable[Item],
    work: Callable[[Item], Any],
    *,
    workers: int = 1,
    time_limit: float = TIME_LIMIT,
    memory: int | None = None,
    check: Callable[[], None] = lambda: None,
) -> Generator[Outcome[Item], None, None]:
    """What `paintproc.jobs.run_jobs` promises, in `workers` processes of this machine."""
    fresh, again = iter(items), deque[tuple[Item, int]]()
    threads = threads_of_worker(workers)
    crew: list[_Worker] = []

    def next_task() -> tuple[Item, int] | None:
        """An item and which try this is: first the fresh ones, then those whose worker died."""
        for item in fresh:
            return item, 1
        return again.popleft() if again else None

    try:
        while True:
            check()
            crew = [worker for worker in crew if worker.alive]
            for worker in crew:
                if worker.task is None and (task := next_task()):
                    worker.give(*task)
            while len(crew) < workers and (task := next_task()):
                crew.append(_Worker(work, memory, threads))
                crew[-1].give(*task)
            if not any(worker.task for worker in crew):
                return
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
                    again.append((outcome.item, worker.tries + 1))
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

    def __init__(self, work: Callable[[Any], Any], memory: int | None, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_begin, args=(theirs, pickle.dumps(work), memory, threads), daemon=True)
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


def _begin(connection: Connection, work: bytes, memory: int | None, threads: int) -> None:
    """What a worker process runs. Its number of threads is set before `work` is loaded, and numpy with it."""
    set_thread_count(threads)
    _serve(connection, pickle.loads(work), memory)


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
