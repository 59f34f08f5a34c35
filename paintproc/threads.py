"""How many threads this process draws with, and work divided among them."""

import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from paintproc.stopping import check_stopped

if TYPE_CHECKING:
    import numpy as np

Result = TypeVar("Result")


_handed: int | None = None
"""How many threads this worker process was told to draw with."""


def thread_count() -> int:
    """The processors this process may use, at most `PAINTPROC_THREADS`; in a worker, at most what it was told."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(available, _handed or named_threads() or available))


def named_threads() -> int | None:
    """The number in `PAINTPROC_THREADS`; None where there is none."""
    named = os.environ.get("PAINTPROC_THREADS", "")
    return max(1, int(named)) if named.isascii() and named.isdigit() else None


def threads_of_worker(workers: int) -> int:
    """How many threads each of `workers` processes draws with: `PAINTPROC_THREADS`, or its part of the processors.

    The bytes that a worker makes do not depend on its number of threads.
    """
    return thread_count() if named_threads() else max(1, thread_count() // workers)


def set_thread_count(threads: int) -> None:
    """Draw with so many threads in this worker process. To be called before numpy is imported, whose matrices are
    multiplied by one thread from then on.
    """
    global _handed
    _handed = threads
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


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
    """`work(begin, end)` for each piece between consecutive `ends`, in this thread and in the drawing threads.

    All that is drawn comes by here: it is also where drawing stops for a signal.
    """
    check_stopped()
    pieces = list(itertools.pairwise(ends))
    results: dict[int, Result] = {}
    numbers = iter(range(len(pieces)))

    def take_pieces() -> None:
        for number in numbers:
            results[number] = work(*pieces[number])

    helpers = min(thread_count(), len(pieces)) - 1
    jobs = [_pool(os.getpid()).submit(take_pieces) for _ in range(helpers)]
    take_pieces()
    for job in jobs:
        if not job.cancel():
            job.result()
    return [results[number] for number in range(len(pieces))]


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    """The drawing threads of one process, beside the one that asks: a forked child starts its own."""
    return ThreadPoolExecutor(max(1, thread_count() - 1), thread_name_prefix=f"rasterize-{process}")
