"""What the command line tells people, on stderr; the library itself never prints."""

import contextlib
import sys
from collections.abc import Callable, Iterator

_quiet = False
_bars = True


def set_quiet(quiet: bool, bars: bool = True) -> None:
    """`quiet` silences notices and bars; `bars` False silences bars alone, which would mix in several processes."""
    global _quiet, _bars
    _quiet, _bars = quiet, bars


def say(text: str) -> None:
    """Print one line for people, unless they asked for silence."""
    if not _quiet:
        print(printable(text), file=sys.stderr)


def complain(text: str) -> None:
    """Print one line about a failure, even to those who asked for silence."""
    print(printable(text), file=sys.stderr)


def printable(text: str) -> str:
    """`text` with control characters spelled out, so that file names cannot steer the terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


@contextlib.contextmanager
def progress_bar(label: str) -> Iterator[Callable[[float], None]]:
    """A bar on stderr, if that is a terminal. Yields a function to call with the part of the work done, 0 to 1."""
    if _quiet or not _bars or not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"))
    bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
    with bar:
        task = bar.add_task(printable(label).replace("[", "\\["), total=1.0)
        yield lambda done: bar.update(task, completed=done)
