"""Files and folders that appear whole or not at all."""

import contextlib
import ctypes
import errno
import hashlib
import os
import secrets
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from paintproc.errors import OutputError

ENDING = ".paintproc-part"
"""Unfinished work is named `.<target>.<machine>-<process>-<random>.paintproc-part`."""


@contextlib.contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """A new folder beside `target`, gone when the block ends, whichever way it ends."""
    target = _resolved(target)
    with plain_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_dead_scratch(target)
        scratch = _scratch(target)
        scratch.mkdir()
    try:
        with plain_errors(target):
            yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def whole_folder(target: Path, *, replace: Callable[[], None] | None = None) -> Iterator[Path]:
    """A new folder to write into; it becomes `target` when the block ends well.

    A `target` that holds something is only replaced where `replace` is given; that is called just
    before and may raise to refuse. On any failure the target is what it was, and no unfinished
    work is left. OutputError for what the file system refuses, before the block where possible.
    """
    target = _resolved(target)
    with scratch_folder(target) as scratch:
        yield scratch
        for folder, _, names in os.walk(scratch):
            for name in names:
                _sync(Path(folder, name))
            _sync(Path(folder))
        if target.is_dir() and any(target.iterdir()):
            if replace is None:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
            replace()
            _exchange(scratch, target)
        else:
            scratch.rename(target)
        _sync(target.parent)


@contextlib.contextmanager
def whole_file(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """A path to write one file to; it becomes `target` when the block ends well."""
    target = _resolved(target)
    with plain_errors(target):
        if target.exists() and not replace:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_dead_scratch(target)
    scratch = _scratch(target)
    try:
        with plain_errors(target):
            yield scratch
            _sync(scratch)
            scratch.replace(target)
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
        return OutputError(f"{target} exists already.", "Choose another --output, or pass --overwrite.")
    reason = (error.strerror or str(error)).lower()
    return OutputError(f"{target} cannot be written: {reason}.", "Choose another --output.")


@contextlib.contextmanager
def plain_errors(target: Path) -> Iterator[None]:
    """Turn OSError into the sentence about `target`."""
    try:
        yield
    except OSError as error:
        raise output_error(target, error) from error


def remove_dead_scratch(target: Path) -> None:
    """Remove unfinished work on `target` by processes of this machine that are no more."""
    for path in target.parent.iterdir():
        if not (path.name.startswith(_stem(target)) and path.name.endswith(ENDING)):
            continue
        machine, _, rest = path.name.removeprefix(_stem(target)).partition("-")
        process = rest.split("-")[0]
        if machine == _machine() and process.isdecimal() and not _alive(int(process)):
            # another process may be removing it too
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _resolved(target: Path) -> Path:
    """The target itself, behind symbolic links; the current folder is refused."""
    with plain_errors(target):
        resolved = target.resolve()
        if resolved == Path.cwd():
            raise OutputError(f"{target} is the current folder, which cannot be replaced.", "Choose another --output.")
        return resolved


def _stem(target: Path) -> str:
    return f".{os.fsencode(target.name)[:100].decode(errors='ignore')}."


def _scratch(target: Path) -> Path:
    return target.with_name(f"{_stem(target)}{_machine()}-{os.getpid()}-{secrets.token_hex(6)}{ENDING}")


def _machine() -> str:
    """A short digest of this machine and its boot, in which process numbers mean something."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    try:
        name = boot.read_text()
    except OSError:
        name = ""
    return hashlib.sha256(f"{uuid.getnode()} {name}".encode()).hexdigest()[:8]


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z"
    except ProcessLookupError:
        return False
    except OSError:
        return True


def _exchange(scratch: Path, target: Path) -> None:
    """Let two folders change places, at once where the system can do that."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    here, at_once = -100, 2
    if rename and rename(here, os.fsencode(scratch), here, os.fsencode(target), at_once) == 0:
        return
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
