"""Which pictures a command was given: files, folders, lists, standard input."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from paintproc.errors import InputError, UsageError

if TYPE_CHECKING:
    from paintproc.media import Picture

STDIN = "-"


def list_inputs(named: list[str], listed_in: str | None, null: bool) -> tuple[list[str], bool]:
    """All pictures in order, and whether they are a batch (several, a folder, or a list).

    UsageError when none is named, InputError for a folder without images or a missing list.
    """
    found: list[str] = []
    batch = listed_in is not None
    for name in named:
        if not name:
            raise UsageError("--image is empty.", "Is a shell variable not set?")
        inside = _in_folder(Path(name)) if name != STDIN else None
        batch = batch or inside is not None
        found.extend([name] if inside is None else inside)
    if listed_in is not None:
        found.extend(read_list(listed_in, null))
    if not found:
        raise UsageError("No picture is named.", "Pass --image PATH.")
    if found.count(STDIN) + (listed_in == STDIN) > 1:
        raise UsageError("Standard input can be read once only.")
    return found, batch or len(found) > 1


def read_input(name: str, max_side: int | None) -> "Picture":
    """The picture at this path, or on standard input for `-`."""
    from paintproc.media import MAX_BYTES, load_picture

    if name == STDIN:
        return load_picture(sys.stdin.buffer.read(MAX_BYTES + 1), max_side=max_side)
    return load_picture(name, max_side=max_side)


def _in_folder(folder: Path) -> list[str] | None:
    """The images in a folder, sorted; None where `folder` is none."""
    from paintproc.media import SUFFIXES

    try:
        if not folder.is_dir():
            return None
        inside = sorted(str(p) for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {(error.strerror or str(error)).lower()}.") from error
    if not inside:
        raise InputError(f"{folder} is a folder without images.")
    return inside


def read_list(source: str, null: bool) -> list[str]:
    """The paths in a file, one a line or ended by NUL; `-` is standard input. InputError where there are none."""
    try:
        data = sys.stdin.buffer.read() if source == STDIN else Path(source).read_bytes()
    except OSError as error:
        raise InputError(f"The list {source} cannot be read: {(error.strerror or str(error)).lower()}.") from error
    if not null and b"\0" in data:
        raise InputError(f"The list {source} holds NUL characters.", "Pass --null.")
    names = data.split(b"\0") if null else data.removeprefix(b"\xef\xbb\xbf").splitlines()
    paths = [os.fsdecode(name) for name in names if name]
    if not paths:
        raise InputError(f"The list {source} is empty.")
    return paths
