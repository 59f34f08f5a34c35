"""Files and folders that appear whole or not at all."""

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import signal
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from paintproc.errors import OutputError
from paintproc.stopping import removed_at_the_end, unbroken

ENDING = ".paintproc-part"
"""Unfinished work is named `.<target>.<machine>-<process>-<start>-<random>.paintproc-part`."""
FORGOTTEN = 24 * 3600.0
"""Age in seconds after which unfinished work is removed where its process cannot be asked: on another machine, or on
Windows.
"""


@contextlib.contextmanager
def scratch_folder(target: Path, *, tidy: bool = True) -> Iterator[Path]:
    """A new folder beside `target`; it is removed when the block ends, also by an error.

    `tidy` removes what dead processes left of the same target. Where a folder has thousands of targets, pass False
    and call `remove_dead_scratch` once.
    """
    target = resolved(target)
    with plain_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if tidy:
            remove_dead_scratch(target.parent, _stem(target))
    scratch = _scratch(target)
    with removed_at_the_end(scratch):
        try:
            with plain_errors(target):
                scratch.mkdir()
                yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def whole_folder(target: Path, *, replace: Callable[[], None] | None = None, tidy: bool = True) -> Iterator[Path]:
    """A new folder to write into; it becomes `target` when the block ends without an error.

    A `target` that holds something is replaced only if `replace` is given. `replace` is called before the block and
    again just before replacing; it may raise to refuse. After any failure `target` is unchanged and no unfinished work
    is left. OutputError for what the file system refuses, before the block where possible.
    """
    target = resolved(target)

    def to_be_replaced() -> bool:
        """Whether `target` holds something that may be replaced."""
        if not target.is_dir() or not any(target.iterdir()):
            return False
        if replace is None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        replace()
        return True

    with plain_errors(target):
        to_be_replaced()
    with scratch_folder(target, tidy=tidy) as scratch:
        yield scratch
        for folder, _, names in os.walk(scratch):
            for name in names:
                _sync(Path(folder, name))
            _sync(Path(folder))
        if to_be_replaced():
            _exchange(scratch, target)
        else:
            _rename_folder(scratch, target)
        _sync(target.parent)


@contextlib.contextmanager
def whole_file(target: Path, *, replace: bool = False, tidy: bool = True) -> Iterator[Path]:
    """A path to write one file to; it becomes `target` when the block ends without an error. `tidy` is as in
    `scratch_folder`.
    """
    target = resolved(target)
    with plain_errors(target):
        if target.exists() and not replace:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
        target.parent.mkdir(parents=True, exist_ok=True)
        if tidy:
            remove_dead_scratch(target.parent, _stem(target))
    scratch = _scratch(target)
    with removed_at_the_end(scratch):
        try:
            with plain_errors(target):
                yield scratch
                _sync(scratch)
                if replace:
                    scratch.replace(target)
                else:
                    _rename_file(scratch, target)
                _sync(target.parent)
        finally:
            scratch.unlink(missing_ok=True)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A new folder among the temporary ones; it is removed when the block ends, also by a signal."""
    with tempfile.TemporaryDirectory(prefix="paintproc-") as folder, removed_at_the_end(Path(folder)):
        yield Path(folder)


def file_digest(path: Path) -> str:
    """sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_home() -> Path:
    """`paintproc` in the user's cache folder; below the temporary folder for a user without a home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "paintproc").expanduser()
    except RuntimeError:
        return Path(tempfile.gettempdir(), f"paintproc-{os.getuid() if hasattr(os, 'getuid') else 0}")


def output_error(target: Path, error: OSError) -> OutputError:
    """The sentence for a write that failed."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"The disk is full; {target} was not written.", "Free some space and run it again.")
    if isinstance(error, FileExistsError) and error.filename == str(target):
        return OutputError(
            f"{target} exists already.", "Choose another --output, or pass --overwrite (in Python: overwrite=True)."
        )
    reason = (error.strerror or str(error)).lower()
    return OutputError(f"{target} cannot be written: {reason}.", "Choose another --output.")


@contextlib.contextmanager
def plain_errors(target: Path) -> Iterator[None]:
    """Turn OSError into the sentence about `target`."""
    try:
        yield
    except OSError as error:
        raise output_error(target, error) from error


def remove_dead_scratch(folder: Path, stem: str = ".") -> None:
    """Remove what dead processes left unfinished in `folder`, of targets whose names begin with `stem`."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.name.startswith(stem) and path.name.endswith(ENDING) and _is_abandoned(path):
            discard(path)


def discard(path: Path) -> None:
    """Remove a file, a link or a folder and its contents; no error if another process removes it first."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def move_folder(source: Path, target: Path, check: Callable[[Path], None]) -> None:
    """Rename a folder to `target` and remove what `target` was; both in one step where the system can do that.

    `source` is first renamed to a name that only this process uses, so of several processes one moves it. `check` is
    called with that name and may raise to refuse. OutputError where the file system refuses.
    """
    target = resolved(target)
    claimed = _scratch(target)
    with plain_errors(target), unbroken():
        source.rename(claimed)
        try:
            check(claimed)
            if target.exists():
                _exchange(claimed, target)
            else:
                claimed.rename(target)
            _sync(target.parent)
        finally:
            shutil.rmtree(claimed, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder in one step, by a new name; its contents go afterwards."""
    with plain_errors(folder):
        claimed = _scratch(folder)
        folder.rename(claimed)
        shutil.rmtree(claimed, ignore_errors=True)


def tidy_beside(target: Path) -> None:
    """Remove what dead processes left of their work on `target`."""
    target = resolved(target)
    with plain_errors(target):
        remove_dead_scratch(target.parent, _stem(target))


def take_over(target: Path) -> Path:
    """A path for this process's unfinished work on `target`: what a dead process left of it, if there is something.

    It is renamed, so that of several processes one gets it. OutputError where the file system refuses.
    """
    with plain_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        for path in target.parent.iterdir():
            if path.name.startswith(_stem(target)) and path.name.endswith(ENDING) and _is_abandoned(path):
                mine = _scratch(target)
                with contextlib.suppress(OSError):
                    path.rename(mine)
                    return mine
    return _scratch(target)


def resolved(target: Path) -> Path:
    """`target` with symbolic links followed. OutputError for the current folder."""
    with plain_errors(target):
        behind = target.resolve()
        if behind == Path.cwd():
            raise OutputError(f"{target} is the current folder, which cannot be replaced.", "Choose another --output.")
        return behind


def _stem(target: Path) -> str:
    """How the names of unfinished work on `target` begin."""
    return f".{os.fsencode(target.name)[:100].decode(errors='ignore')}."


def _scratch(target: Path) -> Path:
    """A new name for this process's unfinished work on `target`."""
    process = os.getpid()
    name = f"{_machine()}-{process}-{_start_of(process)}-{secrets.token_hex(6)}"
    return target.with_name(f"{_stem(target)}{name}{ENDING}")


def _machine() -> str:
    """A short digest of this machine, its boot and its namespace of process numbers."""
    found = [str(uuid.getnode())]
    with contextlib.suppress(OSError):
        found.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        found.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256(" ".join(found).encode()).hexdigest()[:8]


def _is_abandoned(scratch: Path) -> bool:
    """Whether the process that made some unfinished work has ended; judged by age where that cannot be asked."""
    machine, _, rest = scratch.name.removesuffix(ENDING).rpartition(".")[2].partition("-")
    process, _, rest = rest.partition("-")
    start = rest.partition("-")[0]
    if machine == _machine() and process.isdecimal():
        running = _is_running(int(process), start)
        if running is not None:
            return not running
    with contextlib.suppress(OSError):
        return time.time() - scratch.stat().st_mtime > FORGOTTEN
    return False


def _start_of(process: int) -> str:
    """When a process began, in ticks since the boot: tells apart processes that had the same number.

    "zombie" for one that has ended, "unknown" where the system does not say.
    """
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "unknown"
    return "zombie" if fields[0] == "Z" else fields[19]


def _is_running(process: int, start: str) -> bool | None:
    """Whether the process of this number that began at `start` is running; None where the system does not say."""
    if not hasattr(signal, "SIGKILL"):
        # Windows, where `os.kill(process, 0)` would send Ctrl-C
        return True if process == os.getpid() else None
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return _start_of(process) in (start, "unknown")


def _rename_file(scratch: Path, target: Path) -> None:
    """Rename a file. FileExistsError where another process was faster."""
    try:
        if hasattr(os, "link"):
            os.link(scratch, target)
            return
    except FileExistsError:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
    except OSError as error:
        # EINVAL: Windows, on a file system without hard links
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EINVAL):
            raise
    # this file system has no hard links
    scratch.rename(target)


def _rename_folder(scratch: Path, target: Path) -> None:
    """Rename a folder to `target`, which does not exist or is an empty folder."""
    try:
        scratch.rename(target)
    except FileExistsError:
        # Windows does not replace even an empty folder
        target.rmdir()
        scratch.rename(target)


def _exchange(scratch: Path, target: Path) -> None:
    """Exchange two folders: in one step where the system can do that, else `target` is missing for a moment."""
    if _exchange_at_once(scratch, target):
        return
    old = _scratch(target)
    with unbroken():
        target.rename(old)
        try:
            scratch.rename(target)
        except BaseException:
            old.rename(target)
            raise
        old.rename(scratch)


def _exchange_at_once(scratch: Path, target: Path) -> bool:
    """Exchange two folders by Linux's renameat2. False where the system or the file system has no such thing."""
    try:
        import ctypes

        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (ImportError, OSError, TypeError, AttributeError):
        return False
    current_folder, exchange = -100, 2
    if rename(current_folder, os.fsencode(scratch), current_folder, os.fsencode(target), exchange) == 0:
        return True
    reason = ctypes.get_errno()
    if reason in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(reason, os.strerror(reason), str(target))


def _sync(path: Path) -> None:
    """Write a file or a folder's list of names through to the disk, where the system can do that."""
    flags = os.O_RDONLY
    if not hasattr(os, "O_DIRECTORY"):
        # Windows opens no folders, and syncs only files that are open for writing
        if path.is_dir():
            return
        flags = os.O_RDWR
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
