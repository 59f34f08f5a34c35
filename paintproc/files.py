"""Files and folders that appear whole or not at all."""

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from paintproc.errors import OutputError


def is_scratch(path: Path) -> bool:
    """Whether `path` is unfinished work of this module, possibly of a process that was killed."""
    return path.name.startswith(".") and path.name.endswith(".paintproc-part")


@contextlib.contextmanager
def whole_folder(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """A new folder to write into; it becomes `target` when the block ends well.

    An existing `target` is only replaced when it is empty or `replace` is true, and only then.
    On any failure nothing is left behind. OutputError for what the file system refuses.
    """
    with _plain_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = _scratch(target)
        scratch.mkdir()
    try:
        yield scratch
        with _plain_errors(target):
            for folder, _, names in os.walk(scratch):
                for name in names:
                    _sync(Path(folder, name))
                _sync(Path(folder))
            _move(scratch, target, replace)
    except OSError as error:
        raise output_error(target, error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def whole_file(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """A path to write one file to; it becomes `target` when the block ends well."""
    with _plain_errors(target):
        if target.exists() and not replace:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        target.parent.mkdir(parents=True, exist_ok=True)
    scratch = _scratch(target)
    try:
        yield scratch
        with _plain_errors(target):
            _sync(scratch)
            scratch.replace(target)
            _sync(target.parent)
    except OSError as error:
        raise output_error(target, error) from error
    finally:
        scratch.unlink(missing_ok=True)


def output_error(target: Path, error: OSError) -> OutputError:
    """The sentence for a write that failed."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"The disk is full; {target} was not written.", "Free some space and run it again.")
    if isinstance(error, FileExistsError) and target.exists():
        return OutputError(f"{target} exists already.", "Choose another --output, or pass --overwrite.")
    reason = (error.strerror or str(error)).lower()
    return OutputError(f"{target} cannot be written: {reason}.", "Choose another --output.")


@contextlib.contextmanager
def _plain_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise output_error(target, error) from error


def _scratch(target: Path) -> Path:
    stem = target.name.encode()[:100].decode(errors="ignore")
    return target.with_name(f".{stem}.{secrets.token_hex(6)}.paintproc-part")


def _move(scratch: Path, target: Path, replace: bool) -> None:
    if replace and target.is_dir():
        old = _scratch(target)
        target.rename(old)
        try:
            scratch.rename(target)
        except OSError:
            old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    elif target.is_dir() and any(target.iterdir()):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    else:
        scratch.rename(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
