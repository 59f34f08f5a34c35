"""How the kernels are compiled, and where the machine code is kept between runs."""

import contextlib
import functools
import hashlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import config, njit

from paintproc.threads import thread_count

OPTIONS: dict[str, Any] = {"fastmath": True, "nogil": True, "error_model": "numpy"}


def cache_folder() -> Path:
    """The first writable one of: $NUMBA_CACHE_DIR, the user's cache folder, a temporary one.

    The temporary one is used where the home is read-only; it belongs to the user alone.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    scratch = Path(tempfile.gettempdir(), f"paintproc-{user}")
    named = os.environ.get("NUMBA_CACHE_DIR")
    for folder in ([Path(named)] if named else []) + [Path(home, "paintproc", "kernels"), scratch]:
        try:
            folder = folder.expanduser()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if folder.stat().st_uid == user and os.access(folder, os.W_OK | os.X_OK):
                return folder
        except (OSError, RuntimeError):
            continue
    return Path(tempfile.mkdtemp(prefix="paintproc-"))


@functools.cache
def kernel_folder() -> Path:
    """Where this version's machine code is kept: below `cache_folder()`, named after the source of all kernels.

    Kernels inline pieces of each other across files, and numba looks at a kernel's own file alone.
    """
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return cache_folder() / digest.hexdigest()[:16]


def kernel(function: Callable[..., Any]) -> Any:
    """Compile `function` at its first call and keep the result in `kernel_folder()`."""
    settings: Any = config
    before = settings.CACHE_DIR
    settings.CACHE_DIR = str(kernel_folder())
    try:
        return njit(cache=True, **OPTIONS)(function)
    finally:
        settings.CACHE_DIR = before


def inlined(function: Callable[..., Any]) -> Any:
    """A piece of a kernel, inlined into it.

    Inlining lets the compiler see that the scratch arrays do not overlap; without it the
    loops over pixels are not vectorised and cost seven times as much.
    """
    return njit(inline="always", **OPTIONS)(function)


def announce_compilation(say: Callable[[str], None]) -> None:
    """Tell people when the kernels are about to be compiled for this machine."""
    from paintproc.strokes.ops.kernels import composite

    if not is_compiled(composite):
        say("compiling the stroke kernels for this machine, once: about 10 seconds ...")


def is_compiled(kernel: Any) -> bool:
    """Whether the machine code of `kernel` is loaded, or kept from an earlier run."""
    function = kernel.py_func
    name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}-*.nbi"
    return bool(kernel.signatures) or any(kernel_folder().rglob(name))


def compile_in_background() -> None:
    """Let another process compile the kernel of strokes laid in turn, if it is not compiled and a processor is free.

    It is the one large kernel that a plan needs late: this process compiles the others meanwhile. Nothing waits for
    the other process; if it fails, the kernel is compiled when it is called.
    """
    from paintproc.strokes.ops.in_turn import lay_tiles

    if thread_count() > 1 and multiprocessing.parent_process() is None and not is_compiled(lay_tiles):
        code = "from paintproc.strokes.ops.in_turn import compile_now; compile_now()"
        quiet: Any = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        with contextlib.suppress(OSError):
            # -P: as this process, it must not import from the folder in which the user works
            subprocess.Popen([sys.executable, "-P", "-c", code], **quiet)
