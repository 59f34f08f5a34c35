"""How a signal stops a command: it is recorded when it comes, and raised where the program looks.

A signal handler raises nothing: the exception could strike code that must not be left halfway, as an import, the start
of a thread or a compiler. It sets a flag. `check_stopped` raises, and every loop that lasts calls it.

What cannot look, as a compiler, a network or a read that waits, is watched by a thread. Where the program has not
noticed the signal after `PATIENCE` seconds, or has not ended after `GRACE`, the thread removes this process's
unfinished work, ends its child processes, says why, and ends the process.

Where nobody called `listen`, as in a program that uses the library, signals do what that program wants.
"""

import contextlib
import os
import select
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import IO, NoReturn

from paintproc.errors import Interrupted

SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP", "SIGBREAK")
"""Signals that stop a command, where the system has them; SIGBREAK is Windows' Ctrl-Break."""
PATIENCE = 2.0
"""Seconds until the program must have noticed a signal."""
GRACE = 7.0
"""Seconds until a program that has noticed a signal must have ended."""
LOOK = 0.05
"""Seconds between two looks of the watching thread, once a signal has come."""
PIECE = 1 << 20
"""Bytes of standard input read at once."""

unfinished: set[Path] = set()
"""Files and folders that this process is writing; they are removed where the process ends at once."""


class _State:
    """What is known of signals in this process."""

    listening = False
    signal = 0
    """The number of the first signal that came."""
    noticed = False
    """Whether the program has begun to stop."""
    unbroken = 0
    """How many blocks are running that must not be cut short."""
    finished = False
    """Whether the command has done its work, so that a signal changes nothing."""
    grace = GRACE
    speaks = True
    bell = -1
    """Where a byte is written to wake the watching thread."""
    stderr = -1
    """The standard error output, also while another one takes its place."""


_state = _State()
_said = threading.Lock()
"""Held by whoever says that a signal came: it is said once."""


def listen(names: tuple[str, ...] = SIGNALS, *, grace: float = GRACE, speaks: bool = True) -> None:
    """Record these signals from now on, and watch that this process ends after one. For the main thread.

    A SIGHUP that is ignored already stays ignored: `nohup` wants that. Where the system has no wakeup descriptor, the
    watching thread learns of a signal once the interpreter runs Python code again.
    """
    if _state.listening:
        return
    _state.listening, _state.grace, _state.speaks = True, grace, speaks
    heard, _state.bell = os.pipe()
    if hasattr(os, "set_blocking"):
        os.set_blocking(_state.bell, False)
    if hasattr(signal, "set_wakeup_fd"):
        signal.set_wakeup_fd(_state.bell, warn_on_full_buffer=False)
    for name in names:
        number = getattr(signal, name, None)
        if number is not None and not (name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN):
            signal.signal(number, _record)
    with contextlib.suppress(OSError):
        _state.stderr = os.dup(2)
    threading.Thread(target=_watch, args=(heard,), daemon=True, name="signals").start()


def check_stopped() -> None:
    """Raise where a signal came: KeyboardInterrupt for SIGINT, else Interrupted. All that lasts calls it often."""
    if _state.signal:
        _state.noticed = True
        raise KeyboardInterrupt if _state.signal == signal.SIGINT else Interrupted(_sentence())


def stopped() -> int:
    """The exit code that a signal gave this command; 0 where none came."""
    return 0 if not _state.signal else 130 if _state.signal == signal.SIGINT else Interrupted.exit_code


def say_stopped() -> None:
    """Say on stderr which signal came, once."""
    if _said.acquire(blocking=False) and _state.speaks:
        text = f"paintproc: {_sentence()}\n".encode()
        handle = _state.stderr if _state.stderr >= 0 else 2
        if os.isatty(handle):
            # a progress bar has hidden the cursor
            text = b"\r\x1b[2K\x1b[?25h" + text
        # whoever reads stderr may have stopped reading: nothing waits for that
        with contextlib.suppress(OSError, ValueError):
            writable = True
            with contextlib.suppress(OSError):
                # Windows can ask this of sockets only
                writable = bool(select.select([], [handle], [], 0)[1])
            if writable:
                os.write(handle, text)


def finished() -> None:
    """The command has done its work: a signal from now on changes nothing."""
    _state.finished = True


def leave(code: int) -> NoReturn:
    """End this process. The interpreter does not shut down: threads of torch and numba may crash it, or hold it up."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except BrokenPipeError:
            pass
        except (OSError, ValueError):
            code = code or 1
    if stopped():
        _end_children()
        _remove_unfinished()
    os._exit(code)


@contextlib.contextmanager
def removed_at_the_end(path: Path) -> Iterator[None]:
    """Have `path` removed where this process ends at once, as long as the block runs."""
    unfinished.add(path)
    try:
        yield
    finally:
        unfinished.discard(path)


@contextlib.contextmanager
def unbroken() -> Iterator[None]:
    """Do not end this process at once in the block, which is short; it may take until `GRACE` is over."""
    _state.unbroken += 1
    try:
        yield
    finally:
        _state.unbroken -= 1


def read_stream(stream: IO[bytes], most: int = -1) -> bytes:
    """All bytes of a stream, or the first `most`; a signal ends the waiting for them."""
    try:
        handle = stream.fileno()
    except OSError:
        return stream.read(most)
    pieces, left = [], most
    while left:
        with contextlib.suppress(OSError, ValueError):
            # Windows can ask this of sockets only
            while not select.select([handle], [], [], 0.1)[0]:
                check_stopped()
        check_stopped()
        piece = os.read(handle, PIECE if left < 0 else min(left, PIECE))
        if not piece:
            break
        pieces.append(piece)
        left -= len(piece) if left > 0 else 0
    return b"".join(pieces)


def _record(number: int, frame: FrameType | None) -> None:
    _state.signal = _state.signal or number
    with contextlib.suppress(OSError):
        os.write(_state.bell, bytes([number]))


def _sentence() -> str:
    if _state.signal == signal.SIGINT:
        return "stopped; nothing half-written is left."
    name = signal.Signals(_state.signal).name
    return f"Stopped by {name}; what was finished is kept. Run the same command again to go on."


def _watch(heard: int) -> None:
    """Wait for a signal, and see to it that this process ends."""
    while not _state.signal:
        # also other signals ring, which have handlers of their own
        numbers = [number for number in os.read(heard, 64) if _is_ours(number)]
        if numbers:
            _state.signal = _state.signal or numbers[0]
    begun = time.monotonic()
    while not _state.finished:
        waited = time.monotonic() - begun
        if waited > (_state.grace if _state.noticed or _state.unbroken else min(PATIENCE, _state.grace)):
            _end_now()
        time.sleep(LOOK)


def _is_ours(number: int) -> bool:
    return signal.getsignal(number) == _record


def _end_now() -> NoReturn:
    """End this process at once, whatever its other threads do."""
    _end_children()
    _remove_unfinished()
    say_stopped()
    os._exit(stopped())


def _remove_unfinished() -> None:
    # a thread that is still writing may make a file just now: look again
    for _ in range(20):
        left = [path for path in list(unfinished) if os.path.lexists(path)]
        for path in left:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()
        if not left:
            return
        time.sleep(LOOK)


def _end_children() -> None:
    """Kill the processes that this one has started, and theirs. Only where the system lists processes in /proc."""
    if not hasattr(signal, "SIGKILL"):
        return
    for _ in range(3):
        found = _descendants(os.getpid())
        for process in found:
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
        if not found:
            return


def _descendants(parent: int) -> list[int]:
    """The processes below this one that are running."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
            if fields[0] not in "ZX":
                children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, waiting = list[int](), [parent]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found
