"""What paintproc sees of the system is what Windows offers.

Only modules of paintproc get the reduced `os`, `signal` and `ctypes`: the standard library and other packages have
code of their own for Windows. Renaming, opening folders, syncing and text files behave as they do there, for everybody.
"""

import builtins
import ctypes
import errno
import fcntl
import os
import pathlib
import signal
import types

NO_OS = """
    chown chroot ctermid fchdir fchmod fchown fork forkpty getegid geteuid getgid getgroups getloadavg getpgid getpgrp
    getpriority getresgid getresuid getsid getuid initgroups killpg lchown lockf mkfifo mknod nice openpty
    pathconf pipe2 posix_fadvise posix_fallocate posix_spawn posix_spawnp pread pwrite pwritev preadv register_at_fork
    sched_getaffinity sched_setaffinity sched_yield setegid seteuid setgid setgroups setpgid setpriority setregid setsid
    setuid statvfs fstatvfs sync sysconf tcgetpgrp ttyname uname wait wait3 wait4 waitid process_cpu_count
    O_CLOEXEC O_DIRECTORY O_DSYNC O_NOCTTY O_NOFOLLOW O_NONBLOCK O_SYNC WNOHANG WEXITED WNOWAIT P_PID
"""
SIGNALS = ("SIGINT", "SIGTERM", "SIGABRT", "SIGFPE", "SIGILL", "SIGSEGV", "SIG_DFL", "SIG_IGN")
SIGNAL = (*SIGNALS, "Signals", "signal", "getsignal", "raise_signal", "default_int_handler", "strsignal")
NO_MODULE = ("fcntl", "grp", "pwd", "resource", "termios")
FORBIDDEN = set('<>:"|?*\\')

_open, _fsync, _kill, _rename, _replace, _unlink = os.open, os.fsync, os.kill, os.rename, os.replace, os.unlink
_import, _read_text, _write_text = builtins.__import__, pathlib.Path.read_text, pathlib.Path.write_text


def open_file(path, flags, *rest, **more):  # type: ignore[no-untyped-def]
    if os.path.isdir(path):  # noqa: PTH112
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    return _open(path, flags, *rest, **more)


def sync_file(handle):  # type: ignore[no-untyped-def]
    if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    _fsync(handle)


def kill(process, number):  # type: ignore[no-untyped-def]
    """On Windows the signal 0 is Ctrl-C to a group of processes, and any other one ends the process."""
    os._exit(99)


def load_library(name, *rest, **more):  # type: ignore[no-untyped-def]
    if name is None:
        raise TypeError("argument of type 'NoneType' is not iterable")
    return ctypes.CDLL(name, *rest, **more)


def check_free(path):  # type: ignore[no-untyped-def]
    """What is open, or holds something open, is neither renamed nor replaced nor removed."""
    place = os.path.abspath(path)  # noqa: PTH100
    for handle in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            name = os.readlink(f"/proc/self/fd/{handle}")  # noqa: PTH115
        except OSError:
            continue
        if name == place or name.startswith(f"{place}/"):
            raise PermissionError(errno.EACCES, "being used by another process", str(path))


def rename(source, target, **more):  # type: ignore[no-untyped-def]
    check_free(source)
    if FORBIDDEN & set(os.path.basename(target)):  # noqa: PTH119
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(target))
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(source), None, str(target))
    _rename(source, target, **more)


def replace(source, target, **more):  # type: ignore[no-untyped-def]
    check_free(source)
    check_free(target)
    if os.path.isdir(target):  # noqa: PTH112
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(source), None, str(target))
    _replace(source, target, **more)


def unlink(path, *, dir_fd=None):  # type: ignore[no-untyped-def]
    if dir_fd is None:
        check_free(path)
    _unlink(path, dir_fd=dir_fd)


def read_text(self, *rest, **more):  # type: ignore[no-untyped-def]
    if str(self).startswith("/proc/"):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))
    return _read_text(self, *rest, **more)


def write_text(self, data, encoding=None, errors=None, newline=None):  # type: ignore[no-untyped-def]
    return _write_text(self, data, encoding, errors, "\r\n" if newline is None else newline)


def _reduced(module, names, **other):  # type: ignore[no-untyped-def]
    less = types.ModuleType(module.__name__)
    vars(less).update({name: getattr(module, name) for name in names}, **other)
    return less


FEWER = {
    "os": _reduced(os, set(dir(os)) - set(NO_OS.split()), open=open_file, fsync=sync_file, kill=kill),
    "signal": _reduced(signal, SIGNAL),
    "ctypes": _reduced(ctypes, dir(ctypes), CDLL=load_library),
}


def import_module(name, globals=None, locals=None, fromlist=(), level=0):  # type: ignore[no-untyped-def]
    if str((globals or {}).get("__name__")).partition(".")[0] == "paintproc" and not level:
        if name in NO_MODULE:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if name in FEWER:
            return FEWER[name]
    return _import(name, globals, locals, fromlist, level)


builtins.__import__ = import_module
os.rename, os.replace, os.unlink, os.remove = rename, replace, unlink, unlink  # type: ignore[assignment]
pathlib.Path.read_text, pathlib.Path.write_text = read_text, write_text  # type: ignore[method-assign]
