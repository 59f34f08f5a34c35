"""Files and folders that appear whole or not at all."""

import contextlib
import ctypes
import errno
import hashlib
import os
import secrets
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from paintproc.errors import OutputError

ENDING = ".paintproc-part"
"""Unfinished work is named `.<target>.<machine>-<process>-<start>-<random>.paintproc-part`."""
FORGOTTEN = 24 * 3600.0
"""Seconds after which unfinished work of another machine is taken to be a dead process's."""


@contextlib.contextmanager
def scratch_folder(target: Path, *, tidy: bool = True) -> Iterator[Path]:
    """A new folder beside `target`, gone when the block ends, whichever way it ends.

    With `tidy` what dead processes left of the same target is removed; where a folder has thousands of
    targets, `remove_dead_scratch` does that once for all.
    """
    target = resolved(target)
    with plain_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if tidy:
            remove_dead_scratch(target.parent, _stem(target))
    scratch = _scratch(target)
    try:
        with plain_errors(target):
            scratch.mkdir()
            yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def whole_folder(target: Path, *, replace: Callable[[], None] | None = None, tidy: bool = True) -> Iterator[Path]:
    """A new folder to write into; it becomes `target` when the block ends well.

    A `target` that holds something is only replaced where `replace` is given; that is called before
    the block and again just before replacing, and may raise to refuse. On any failure the target is what it was, and
    no unfinished work is left. OutputError for what the file system refuses, before the block where possible.
    """
    target = resolved(target)

    def held() -> bool:
        """Whether the target is there, and may be replaced."""
        if not target.is_dir() or not any(target.iterdir()):
            return False
        if replace is None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        replace()
        return True

    with plain_errors(target):
        held()
    with scratch_folder(target, tidy=tidy) as scratch:
        yield scratch
        for folder, _, names in os.walk(scratch):
            for name in names:
                _sync(Path(folder, name))
            _sync(Path(folder))
        if held():
            _exchange(scratch, target)
        else:
            scratch.rename(target)
        _sync(target.parent)


@contextlib.contextmanager
def whole_file(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """A path to write one file to; it becomes `target` when the block ends well."""
    target = resolved(target)
    with plain_errors(target):
        if target.exists() and not replace:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_dead_scratch(target.parent, _stem(target))
    scratch = _scratch(target)
    try:
        with plain_errors(target):
            yield scratch
            _sync(scratch)
            if replace:
                scratch.replace(target)
            else:
                _appear(scratch, target)
            _sync(target.parent)
    finally:
        scratch.unlink(missing_ok=True)


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
    """Remove unfinished work in `folder`, of targets whose names begin with `stem`, by processes that are no more."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.name.startswith(stem) and path.name.endswith(ENDING) and _dead(path):
            discard(path)


def discard(path: Path) -> None:
    """Remove a file, a link or a folder with all that is in it; another process may be removing it, too."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def move_folder(source: Path, target: Path, check: Callable[[Path], None]) -> None:
    """Give a folder the name `target`; what has it now is replaced, at once where the system can do that, and removed.

    Of several processes that move the same folder one gets it, by giving it a name of its own first; `check` is called
    with that and may raise to refuse. OutputError where the file system refuses.
    """
    target = resolved(target)
    claimed = _scratch(target)
    with plain_errors(target):
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


def tidy_beside(target: Path) -> None:
    """Remove what dead processes left of their work on `target`."""
    target = resolved(target)
    with plain_errors(target):
        remove_dead_scratch(target.parent, _stem(target))


def resolved(target: Path) -> Path:
    """The target itself, behind symbolic links; the current folder is refused."""
    with plain_errors(target):
        behind = target.resolve()
        if behind == Path.cwd():
            raise OutputError(f"{target} is the current folder, which cannot be replaced.", "Choose another --output.")
        return behind


def _stem(target: Path) -> str:
    return f".{os.fsencode(target.name)[:100].decode(errors='ignore')}."


def _scratch(target: Path) -> Path:
    process = os.getpid()
    name = f"{_machine()}-{process}-{_start_of(process)}-{secrets.token_hex(6)}"
    return target.with_name(f"{_stem(target)}{name}{ENDING}")


def _machine() -> str:
    """A short digest of this machine, its boot and the namespace in which process numbers mean something."""
    found = [str(uuid.getnode())]
    with contextlib.suppress(OSError):
        found.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        found.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256(" ".join(found).encode()).hexdigest()[:8]


def _dead(scratch: Path) -> bool:
    """Whether the process that made some unfinished work is no more, as far as this machine can tell."""
    machine, _, rest = scratch.name.removesuffix(ENDING).rpartition(".")[2].partition("-")
    process, _, rest = rest.partition("-")
    start = rest.partition("-")[0]
    if machine != _machine() or not process.isdecimal():
        with contextlib.suppress(OSError):
            return time.time() - scratch.stat().st_mtime > FORGOTTEN
        return False
    return not _alive(int(process), start)


def _start_of(process: int) -> str:
    """When a process began, in ticks since the boot: a number that is used again is told apart. "zombie" for one that
    has ended, "unknown" where the system does not say.
    """
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "unknown"
    return "zombie" if fields[0] == "Z" else fields[19]


def _alive(process: int, start: str) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return _start_of(process) in (start, "unknown")


def _appear(scratch: Path, target: Path) -> None:
    """Give a file its name; FileExistsError where another process was faster."""
    try:
        os.link(scratch, target)
    except FileExistsError:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        # no hard links on this file system
        scratch.rename(target)


def _exchange(scratch: Path, target: Path) -> None:
    """Let two folders change places, at once where the system can do that."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    here, at_once = -100, 2
    if rename:
        if rename(here, os.fsencode(scratch), here, os.fsencode(target), at_once) == 0:
            return
        reason = ctypes.get_errno()
        if reason not in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
            raise OSError(reason, os.strerror(reason), str(target))
    old = _scratch(target)
    target.rename(old)
    try:
        scratch.rename(target)
    except BaseException:
        old.rename(target)
        raise
    old.rename(scratch)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
