"""Many items in several processes of this machine. A worker that dies, hangs or runs out of memory costs one item.

No worker outlives its parent. Results come in the order in which they are finished; what is made must not depend on
that order, nor on the number of workers.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from typing import Any

from paintproc import stopping
from paintproc.errors import Interrupted, PaintprocError
from paintproc.jobs import DIED, GRACE, TIME_LIMIT, TRIES, Item, Outcome
from paintproc.threads import set_thread_count, threads_of_worker

LEAVING = 3.0
"""Seconds that a worker takes to stop at most; then it tidies up and ends at once."""
FOR_THE_PARENT = ("SIGINT", "SIGUSR1", "SIGHUP", "SIGBREAK")
"""Signals that go to the whole group of processes, as Ctrl-C does: the parent decides what to do about them."""
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
                if outcome.error:
                    # the signal that stops this process may have gone to its workers too
                    check()
                if outcome.exit_code == DIED and worker.tries < TRIES:
                    again.append((outcome.item, worker.tries + 1))
                else:
                    yield outcome if outcome.exit_code != DIED else replace(outcome, exit_code=1)
    finally:
        for worker in crew:
            if worker.task is None:
                # it waits for a task, and ends at once when there will be none
                worker.connection.close()
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
        with _held_back():
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


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Hold back the signals that are for the parent, also in processes that are started in the block.

    Until it ignores them, a worker would die of them, and print a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    numbers = {getattr(signal, name) for name in FOR_THE_PARENT if hasattr(signal, name)}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection: Connection, work: Callable[[Any], Any], memory: int | None) -> None:
    """What a worker does: one item after the other, until the parent closes the connection or asks it to stop."""
    for name in FOR_THE_PARENT:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # this one comes from the parent: clean up and exit
    stopping.listen(("SIGTERM",), grace=LEAVING, speaks=False)
    _die_with_parent()
    if memory is not None:
        limit_memory(memory)
    try:
        while True:
            while not connection.poll(0.1):
                stopping.check_stopped()
            (item,) = connection.recv()
            connection.send(_answer(item, work))
    except (EOFError, OSError):
        stopping.leave(0)
    except Interrupted:
        stopping.leave(Interrupted.exit_code)


def _answer(item: Any, work: Callable[[Any], Any]) -> tuple[Any, str, int]:
    """The result of one item, or a sentence about what went wrong, and the exit code."""
    try:
        return work(item), "", 0
    except Exception as error:
        # an error may be the signal's doing
        stopping.check_stopped()
        if isinstance(error, PaintprocError):
            return None, str(error), error.exit_code
        if isinstance(error, MemoryError):
            return None, "out of memory", 5
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = f"this is a bug: {type(error).__name__}: {error} ({where.name}, line {where.lineno})"
        return None, text, 1


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
