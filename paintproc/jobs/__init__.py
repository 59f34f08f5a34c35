"""Many items, one outcome each, whatever happens to what works on them.

`local.py` runs them in worker processes of this machine, `ray.py` on Ray.
"""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

Item = TypeVar("Item")

TIME_LIMIT = 600.0
"""Seconds for one item; after that its worker is killed."""
TRIES = 2
"""How often an item is tried if its worker dies: the machine may have been short of memory for a moment."""
GRACE = 5.0
"""Seconds between asking a worker to stop and killing it."""
DIED = -1
"""Exit code of an outcome whose worker died; callers see 1."""


@dataclass(frozen=True)
class Outcome(Generic[Item]):
    """What became of one item: `result`, or a sentence in `error` with its exit code."""

    item: Item
    result: Any = None
    error: str = ""
    exit_code: int = 0


@dataclass(frozen=True)
class Engine:
    """What runs many items. The bytes that are made do not depend on it."""

    kind: Literal["local", "ray"] = "local"
    workers: int = 1
    """How many items are worked on at once; with a Ray cluster, 0 for as many as it has room for."""
    address: str | None = None
    """The Ray cluster to join: "auto" or host:port. None starts a Ray of our own on this machine."""
    memory: int | None = None
    """Bytes that Ray sets aside for each worker."""
    gpus: float = 0.0
    """How many GPUs Ray sets aside for each worker; a part of one may be shared."""
    verbose: bool = False
    """Whether Ray may print."""


def run_jobs(
    items: Iterable[Item],
    work: Callable[[Item], Any],
    engine: Engine,
    *,
    time_limit: float = TIME_LIMIT,
    memory: int | None = None,
    check: Callable[[], None] = lambda: None,
) -> Generator[Outcome[Item], None, None]:
    """Do `work` on each item; every item gives one outcome, in the order in which they are finished.

    `work` is a function of a module; it, the items and the results can be pickled. A worker that dies or takes longer
    than `time_limit` seconds for an item is replaced; if it died, the item is tried once more. `memory` bounds each
    worker's address space in bytes, where the system can do that. `check` is called about ten times a second and may
    raise to stop. When the iteration ends, for any reason, all workers are asked to stop, then killed.

    `items` are taken as they are needed. MissingError where Ray is to be used and is not installed, DeviceError where
    it cannot be reached or is lost.
    """
    if engine.kind == "ray":
        from paintproc.jobs.ray import run_jobs as run_on_ray

        return run_on_ray(items, work, engine, time_limit=time_limit, memory=memory, check=check)
    from paintproc.jobs.local import run_jobs as run_here

    return run_here(items, work, workers=engine.workers, time_limit=time_limit, memory=memory, check=check)
