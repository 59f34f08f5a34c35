"""Which pictures a command was given: files, folders, lists, standard input."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from paintproc.errors import InputError, UsageError

if TYPE_CHECKING:
    from paintproc.media import Picture

STDIN = Path("-")


def list_inputs(named: list[Path], listed_in: str | None, null: bool) -> tuple[list[Path], bool]:
    """All pictures in order, and whether they are a batch (several, a folder, or a list).

    UsageError when none is named, InputError for a folder without images or a missing list.
    """
    found: list[Path] = []
    for path in named:
        found.extend(_in_folder(path) if path != STDIN and path.is_dir() else [path])
    if listed_in is not None:
        found.extend(_in_list(listed_in, null))
    if not found:
        raise UsageError("No picture is named.", "Pass --image PATH.")
    if found.count(STDIN) > 1 or (STDIN in found and listed_in == "-"):
        raise UsageError("Standard input can be read once only.")
    batch = len(found) > 1 or listed_in is not None or any(path != STDIN and path.is_dir() for path in named)
    return found, batch


def read_input(path: Path, max_side: int | None) -> "Picture":
    """The picture at `path`, or on standard input for `-`."""
    from paintproc.media import MAX_BYTES, load_picture

    if path == STDIN:
        return load_picture(sys.stdin.buffer.read(MAX_BYTES + 1), max_side=max_side)
    return load_picture(path, max_side=max_side)


def _in_folder(folder: Path) -> list[Path]:
    from paintproc.media import SUFFIXES

    try:
        inside = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {(error.strerror or str(error)).lower()}.") from error
    if not inside:
        raise InputError(f"{folder} is a folder without images.")
    return inside


def _in_list(source: str, null: bool) -> list[Path]:
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise InputError(f"The list {source} cannot be read: {(error.strerror or str(error)).lower()}.") from error
    names = data.split(b"\0") if null else data.splitlines()
    paths = [Path(os.fsdecode(name)) for name in names if name]
    if not paths:
        raise InputError(f"The list {source} is empty.")
    return paths
