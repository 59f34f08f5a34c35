"""Many inputs, a function for each of them: progress, failures, time limits.

`work_through` runs the function; the caller decides what becomes of each outcome: the line of a dataset
(`dataset/build.py`), a folder of its own (`generate` with several pictures). A batch of folders lists its failures in
`failures.jsonl`, which `FailureList` keeps.
"""

import contextlib
import functools
import json
import time
import traceback
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from paintproc.errors import Interrupted, OutputError, PaintprocError
from paintproc.files import whole_file
from paintproc.jobs import Engine, Outcome, run_jobs

FAILURES = "failures.jsonl"
FAILURE = ("input", "error", "exit_code")
"""The keys of a line of `failures.jsonl`."""


@dataclass(frozen=True)
class Item:
    """One input: its number, its name for messages, and what the function takes."""

    place: int
    name: str
    task: Any


def work_through(
    items: Iterable[Item],
    work: Callable[[Any], Any],
    count: int,
    *,
    engine: Engine | None = None,
    item_seconds: float = 900.0,
    time_limit: float | None = None,
    memory: int | None = None,
    progress: Callable[[float], None] = lambda done: None,
    check: Callable[[], None] = lambda: None,
) -> Generator[Outcome[Item], None, None]:
    """`work(item.task)` for each of `count` items; one outcome each, in the order in which they are finished.

    Without an `engine` this process does the work itself. One item may take `item_seconds`, all together `time_limit`
    seconds: Interrupted is raised when the longest so far would no longer fit. The sentence of a failure names its
    input. `memory`, in bytes, and `check` are as in `run_jobs`.
    """
    begun, longest, done = time.monotonic(), 0.0, 0

    def check_time() -> None:
        check()
        if time_limit is not None and time.monotonic() - begun + longest > time_limit:
            raise Interrupted("The time limit is reached; what was finished is kept. Run the same command again.")

    timed = functools.partial(_timed, work)
    if engine is None:
        running = _one_by_one(items, timed, check_time)
    else:
        engine = replace(engine, workers=min(engine.workers, count))
        running = run_jobs(items, timed, engine, time_limit=item_seconds, memory=memory, check=check_time)
    with contextlib.closing(running):
        for outcome in running:
            if outcome.exit_code:
                yield _named(outcome)
            else:
                result, seconds = outcome.result
                longest = max(longest, seconds)
                yield replace(outcome, result=result)
            done += 1
            progress(done / max(1, count))


def _timed(work: Callable[[Any], Any], item: Item) -> tuple[Any, float]:
    """What `work` gives for an item, and the seconds that it took."""
    begun = time.monotonic()
    return work(item.task), time.monotonic() - begun


def _one_by_one(
    items: Iterable[Item], work: Callable[[Item], Any], check: Callable[[], None]
) -> Generator[Outcome[Item], None, None]:
    """As `run_jobs`, in this process."""
    for item in items:
        check()
        try:
            yield Outcome(item, work(item))
        except BrokenPipeError:
            raise
        except Exception as error:
            # an error may be a signal's doing
            check()
            if isinstance(error, PaintprocError):
                yield Outcome(item, error=str(error), exit_code=error.exit_code)
                continue
            if isinstance(error, MemoryError):
                yield Outcome(item, error="out of memory; a smaller --size needs less", exit_code=5)
                continue
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = f"this is a bug: {type(error).__name__}: {error} ({where.name}, line {where.lineno})"
            yield Outcome(item, error=text, exit_code=1)


def _named(outcome: Outcome[Item]) -> Outcome[Item]:
    """A failure whose sentence names its input."""
    text, name = outcome.error, outcome.item.name
    return outcome if name in text else replace(outcome, error=f"{name}: {text.rstrip('.')}.")


class FailureList:
    """The inputs of a batch that failed, and their list in a folder: one line each, with the keys in `FAILURE`.

    OutputError, before any work, where a file of that name is no such list.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FAILURES
        self.lines: list[dict[str, Any]] = []
        self.places: list[int] = []
        if self.path.is_symlink() or (self.path.exists() and not self._is_ours()):
            raise OutputError(f"{self.path} exists already and is not a list of failures.", "Choose another --output.")

    def add(self, outcome: Outcome[Item]) -> dict[str, Any]:
        """The line about a failure, which is kept."""
        self.places.append(outcome.item.place)
        self.lines.append({"input": outcome.item.name, "error": outcome.error, "exit_code": outcome.exit_code})
        return self.lines[-1]

    def write(self) -> None:
        """Write the list whole, in the order of the inputs, or remove an older one where nothing failed."""
        if not self.lines:
            self.path.unlink(missing_ok=True)
            return
        ordered = (self.lines[k] for k in sorted(range(len(self.lines)), key=lambda k: self.places[k]))
        with whole_file(self.path, replace=True) as scratch:
            scratch.write_text("".join(json.dumps(line) + "\n" for line in ordered), encoding="utf-8", newline="\n")

    def _is_ours(self) -> bool:
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
            return all(set(json.loads(line)) == set(FAILURE) for line in lines)
        except (OSError, ValueError, TypeError, RecursionError):
            return False
