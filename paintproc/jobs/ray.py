"""Many items on Ray, on this machine or on a cluster, with the promises of `local.py`.

Ray's driver is a process of its own (`driver.py`): Ray takes signals over, prints, and ends the process that joined a
cluster when the cluster is lost. This side hands it items, a bounded number at a time, and takes what became of them.
"""

import contextlib
import importlib.util
import multiprocessing
import os
import pickle
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from paintproc.errors import DeviceError, MissingError
from paintproc.jobs import GRACE, TIME_LIMIT, Engine, Item, Outcome
from paintproc.jobs.driver import VERBOSE, Setup, drive
from paintproc.threads import named_threads, threads_of_worker

AHEAD = 2
"""Items that the driver holds for each place where one can be worked on."""
LEAVING = GRACE + 10.0
"""Seconds between asking the driver to leave Ray and killing it."""


def run_jobs(
    items: Iterable[Item],
    work: Callable[[Item], Any],
    engine: Engine,
    *,
    time_limit: float = TIME_LIMIT,
    memory: int | None = None,
    check: Callable[[], None] = lambda: None,
) -> Generator[Outcome[Item], None, None]:
    """What `paintproc.jobs.run_jobs` promises, on Ray.

    An item whose machine, or whose place on it, is lost is tried elsewhere.
    """
    if importlib.util.find_spec("ray") is None:
        raise MissingError("Ray is not installed.", "Run: pip install 'paintproc[ray]', or use --engine local.")
    return _run(iter(items), _setup(work, engine, time_limit, memory), check)


def _run(items: Iterator[Item], setup: Setup, check: Callable[[], None]) -> Generator[Outcome[Item], None, None]:
    flying: dict[int, Item] = {}
    number, most, more = 0, 1, True
    # the first item is taken before Ray is started: there may be none
    with contextlib.ExitStack() as stack:
        driver: _Driver | None = None
        while True:
            check()
            while more and len(flying) < AHEAD * most:
                try:
                    item = next(items)
                except StopIteration:
                    more = False
                    break
                driver = driver or stack.enter_context(_driver(setup))
                driver.send((number, pickle.dumps(item)))
                flying[number] = item
                number += 1
            if driver is None or not flying:
                return
            for kind, *what in driver.messages(check):
                if kind == "joined":
                    (most,) = what
                    driver.joined = True
                elif kind == "failed":
                    raise DeviceError(*what)
                else:
                    place, result, error, code = what
                    yield Outcome(flying.pop(place), result and pickle.loads(result), error, code)


def _setup(work: Callable[[Any], Any], engine: Engine, time_limit: float, memory: int | None) -> Setup:
    private = engine.address is None
    return Setup(
        work=pickle.dumps(work),
        engine=engine,
        memory=memory,
        time_limit=time_limit,
        # a place on this machine gets its part of the processors, one on a cluster asks for as many as it has threads
        threads=threads_of_worker(max(1, engine.workers)) if private else named_threads() or 1,
        folder=str(Path.cwd()),
        path=tuple(sys.path),
    )


class _Driver:
    """The process that speaks with Ray, and the connection to it."""

    def __init__(self, process: Any, connection: Connection, setup: Setup) -> None:
        self.process, self.connection, self.setup, self.joined = process, connection, setup, False

    def send(self, message: tuple[int, bytes]) -> None:
        with contextlib.suppress(OSError):
            # if the driver has ended, `messages` finds that out
            self.connection.send(message)

    def messages(self, check: Callable[[], None]) -> Iterator[tuple[Any, ...]]:
        """What the driver has said by now, after at most a tenth of a second. DeviceError if it has ended."""
        timeout = 0.1
        try:
            while self.connection.poll(timeout):
                yield self.connection.recv()
                timeout = 0.0
            if self.process.is_alive():
                return
        except (EOFError, OSError):
            pass
        # a signal may have ended Ray and be on its way to this process
        time.sleep(0.1)
        check()
        raise DeviceError(*self.lost())

    def lost(self) -> tuple[str, str]:
        address = self.setup.engine.address
        again = f"What was finished is kept; run the same command again. {VERBOSE}"
        if not self.joined:
            what = "Ray could not be started" if address is None else f"No Ray cluster was joined at {address}"
            return f"{what}: its process ended.", VERBOSE
        return "Ray was lost." if address is None else f"The Ray cluster at {address} was lost.", again


@contextlib.contextmanager
def _driver(setup: Setup) -> Iterator[_Driver]:
    """A driver; when the block ends it leaves Ray, or stops the Ray that it started, and ends."""
    with _folder_of_ray(setup) as scratch:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=drive, args=(theirs, setup, scratch), daemon=True)
        process.start()
        theirs.close()
        driver = _Driver(process, ours, setup)
        try:
            yield driver
        finally:
            ours.close()
            if not driver.joined:
                # nothing is being worked on, and Ray must not go on starting
                process.kill()
            process.join(LEAVING)
            process.kill()
            process.join()
            _end_session(process.pid or 0)


def _end_session(leader: int) -> None:
    """End what is left of a driver's session: Ray's agents outlive a raylet that was killed by a minute.

    Elsewhere than on Linux they are left to end by themselves.
    """
    for stat in Path("/proc").glob("[0-9]*/stat"):
        # a process may end while it is looked at
        with contextlib.suppress(OSError, ValueError):
            if int(stat.read_text().rpartition(")")[2].split()[3]) == leader:
                os.kill(int(stat.parent.name), signal.SIGKILL)


@contextlib.contextmanager
def _folder_of_ray(setup: Setup) -> Iterator[str | None]:
    """A folder for the sockets and logs of a Ray of our own; with --verbose it is kept."""
    if setup.engine.address is not None:
        yield None
        return
    # the names of Ray's sockets must have less than 107 bytes
    parent = tempfile.gettempdir()
    folder = tempfile.mkdtemp(prefix="ray-", dir=parent if len(os.fsencode(parent)) < 30 else "/tmp")
    try:
        yield folder
    finally:
        if setup.engine.verbose:
            print(f"Ray's logs are in {folder}", file=sys.stderr)
        else:
            for _ in range(20):
                # processes of Ray that are just ending may still write
                shutil.rmtree(folder, ignore_errors=True)
                if not Path(folder).exists():
                    break
                time.sleep(0.05)
