"""What the command line tells people, on stderr; the library itself never prints."""

import contextlib
import sys
from collections.abc import Callable, Iterator

_quiet = False
_bars = True


def set_quiet(quiet: bool, bars: bool = True) -> None:
    """No notices and no bars, or with `bars` False no bars alone: those of several processes would mix."""
    global _quiet, _bars
    _quiet, _bars = quiet, bars


def say(text: str) -> None:
    """One line for people, unless they asked for silence."""
    if not _quiet:
        print(printable(text), file=sys.stderr)


def complain(text: str) -> None:
    """One line about a failure: said even to those who asked for silence."""
    print(printable(text), file=sys.stderr)


def printable(text: str) -> str:
    """`text` without control characters, so that file names cannot steer the terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


@contextlib.contextmanager
def progress_bar(label: str) -> Iterator[Callable[[float], None]]:
    """A bar on stderr, where that is a terminal; call it with the part of the work done."""
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
