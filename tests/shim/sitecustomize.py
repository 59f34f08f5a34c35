"""Loaded by every process of a command under test: makes the system fail, or a module of ours wrong, as told.

SHIM_BELOW    the folder whose files count
SHIM_COUNTER  a file that grows by one byte for each operation, over all processes
SHIM_AT       the operation that fails, from 1; 0 for none
SHIM_FOREVER  1 if all later ones fail too
SHIM_ERROR    ENOSPC or EIO
SHIM_BREAK    names of functions in `breaks.py`, with commas between them, which make something wrong on purpose
SHIM_STRIKE   a call in which the command sends itself a signal; see `strike.py`
SHIM_SYSTEM   windows, to see of the system what `windows.py` leaves
"""

import builtins
import errno
import importlib.abc
import importlib.util
import io
import os
import sys

BELOW = os.environ.get("SHIM_BELOW", "")
AT = int(os.environ.get("SHIM_AT", "0"))
FOREVER = os.environ.get("SHIM_FOREVER") == "1"
ERROR = getattr(errno, os.environ.get("SHIM_ERROR", "EIO"))

_open, _fsync, _rename, _replace, _link, _mkdir = builtins.open, os.fsync, os.rename, os.replace, os.link, os.mkdir
WRITING = set("wxa+")


def fault(path: object) -> None:
    """Count an operation on `path`; fail where it is the one."""
    place = os.path.abspath(os.fspath(path))  # type: ignore[call-overload]  # noqa: PTH100
    hidden = os.path.join(os.path.dirname(BELOW), f".{os.path.basename(BELOW)}.")  # noqa: PTH118, PTH119, PTH120
    if not BELOW or not place.startswith((BELOW, hidden)):
        return
    handle = os.open(os.environ["SHIM_COUNTER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, b".")
    number = os.lseek(handle, 0, os.SEEK_CUR)
    os.close(handle)
    if AT and (number == AT or (FOREVER and number > AT)):
        raise OSError(ERROR, os.strerror(ERROR), path)


class FailingFile(io.FileIO):
    def write(self, data):  # type: ignore[no-untyped-def]
        fault(self.name)
        return super().write(data)


def failing_open(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):  # type: ignore[no-untyped-def]
    named = isinstance(file, str | bytes | os.PathLike)
    if not (named and WRITING & set(mode) and BELOW and opener is None):
        return _open(file, mode, buffering, encoding, errors, newline, closefd, opener)
    path = os.fspath(file)
    fault(path)
    raw = FailingFile(path, mode.replace("b", "").replace("t", ""))
    buffer = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
    return buffer if "b" in mode else io.TextIOWrapper(buffer, encoding, errors, newline)


def failing(work, place):  # type: ignore[no-untyped-def]
    def run(*arguments, **options):  # type: ignore[no-untyped-def]
        path = arguments[place]
        fault(os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else path)  # noqa: PTH115
        return work(*arguments, **options)

    return run


if BELOW:
    builtins.open = io.open = failing_open
    os.fsync = failing(_fsync, 0)
    os.rename, os.replace, os.link = failing(_rename, 1), failing(_replace, 1), failing(_link, 1)
    _new_folder = failing(_mkdir, 0)
    # a folder that is there is no new one, whatever the disk says
    os.mkdir = lambda path, *rest, **more: (_mkdir if os.path.isdir(path) else _new_folder)(path, *rest, **more)  # noqa: PTH112


class Breaker(importlib.abc.MetaPathFinder):
    """Runs a function of `breaks.py` on the module it is meant for, once that is loaded."""

    def __init__(self, module, work):  # type: ignore[no-untyped-def]
        self.module, self.work, self.looking = module, work, False

    def find_spec(self, name, path, target=None):  # type: ignore[no-untyped-def]
        if name != self.module or self.looking:
            return None
        self.looking = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self.looking = False
        load = spec.loader.exec_module

        def loaded(module):  # type: ignore[no-untyped-def]
            load(module)
            self.work(module)

        spec.loader.exec_module = loaded
        return spec


if os.environ.get("SHIM_BREAK"):
    import breaks

    for broken in filter(None, os.environ["SHIM_BREAK"].split(",")):
        sys.meta_path.insert(0, Breaker(*getattr(breaks, broken)))
if os.environ.get("SHIM_STRIKE"):
    import strike

    if strike.MODULE in sys.modules:
        strike.arm(sys.modules[strike.MODULE])
    else:
        sys.meta_path.insert(0, Breaker(strike.MODULE, strike.arm))
if os.environ.get("SHIM_SYSTEM") == "windows":
    import windows  # noqa: F401
