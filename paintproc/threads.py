"""How many threads this process draws with, and work divided among them."""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np

Result = TypeVar("Result")


def thread_count() -> int:
    """The processors this process may use, at most `PAINTPROC_THREADS`."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    named = os.environ.get("PAINTPROC_THREADS", "")
    return max(1, min(available, int(named))) if named.isascii() and named.isdigit() else available


@contextlib.contextmanager
def threads_of_workers(workers: int) -> Iterator[None]:
    """Give each worker process started in this block an equal part of the processors.

    The bytes that a worker makes do not depend on its number of threads.
    """
    wanted = {"PAINTPROC_THREADS": str(max(1, thread_count() // workers)), "OPENBLAS_NUM_THREADS": "1"}
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def divide(work_before: "np.ndarray", least: float) -> list[int]:
    """Split the indices 0 to n into pieces of about equal work for the threads: their ends, 0 and n included.

    `work_before` [n + 1] is the sum of the work before each index. No piece has less work than `least`.
    """
    import numpy as np

    items, work = len(work_before) - 1, float(work_before[-1])
    pieces = min(3 * thread_count(), int(work / least)) if thread_count() > 1 else 1
    if pieces < 2 or items < 2:
        return [0, items]
    inner = np.searchsorted(work_before, np.linspace(0, work, pieces + 1)[1:-1])
    return [0, *np.unique(np.clip(inner, 1, items - 1)).tolist(), items]


def in_parallel(work: Callable[[int, int], Result], ends: Sequence[int]) -> list[Result]:
    """`work(begin, end)` for each piece between consecutive `ends`, in this process's drawing threads."""
    pieces = list(itertools.pairwise(ends))
    if len(pieces) == 1:
        return [work(*pieces[0])]
    jobs = [_pool(os.getpid()).submit(work, *piece) for piece in pieces]
    return [job.result() for job in jobs]


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    """The drawing threads of one process: a forked child starts its own."""
    return ThreadPoolExecutor(thread_count(), thread_name_prefix=f"rasterize-{process}")
