"""How the kernels are compiled, and where the machine code is kept between runs."""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import config, njit

OPTIONS: dict[str, Any] = {"fastmath": True, "nogil": True, "error_model": "numpy"}


def cache_folder() -> Path:
    """The first writable one of: $NUMBA_CACHE_DIR, the user's cache folder, a temporary one.

    The temporary one is used where the home is read-only; it belongs to the user alone.
    """
    named = os.environ.get("NUMBA_CACHE_DIR")
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    scratch = os.path.join(tempfile.gettempdir(), f"paintproc-{os.getuid() if hasattr(os, 'getuid') else 0}")
    for folder in filter(None, (named, os.path.join(home, "paintproc", "kernels"), scratch)):
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            owned = not hasattr(os, "getuid") or os.stat(folder).st_uid == os.getuid()
            if owned and os.access(folder, os.W_OK | os.X_OK):
                return Path(folder)
        except OSError:
            continue
    return Path(tempfile.mkdtemp(prefix="paintproc-"))


def kernel(function: Callable[..., Any]) -> Any:
    """Compile `function` at its first call and keep the result in `cache_folder()`."""
    before = config.CACHE_DIR
    config.CACHE_DIR = str(cache_folder())
    try:
        return njit(cache=True, **OPTIONS)(function)
    finally:
        config.CACHE_DIR = before


def inlined(function: Callable[..., Any]) -> Any:
    """A piece of a kernel, inlined into it.

    Inlining lets the compiler see that the scratch arrays do not overlap; without it the
    loops over pixels are not vectorised and cost seven times as much.
    """
    return njit(inline="always", **OPTIONS)(function)


def announce_compilation(*kernels: Any) -> None:
    """One line on stderr when the kernels are about to be compiled for the first time."""
    if not sys.stderr.isatty():
        return
    if not any(_is_cached(k) for k in kernels):
        print("compiling the stroke kernels for this machine (once, about 10 s) ...", file=sys.stderr)


def _is_cached(function: Any) -> bool:
    if function.signatures:
        return True
    index = function._cache._cache_file._index_path
    return os.path.exists(index)
