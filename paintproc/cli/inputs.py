"""Which pictures a command was given: files, folders, lists, standard input."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from paintproc.errors import InputError, UsageError
from paintproc.stopping import read_stream

if TYPE_CHECKING:
    from paintproc.media import Picture

STDIN = "-"


@dataclass(frozen=True)
class Input:
    """One picture to be painted."""

    name: str
    """Its path, or `-` for standard input."""
    below: Path = Path()
    """Its subfolder in the folder that was named; outputs are written into the same one."""

    @property
    def stem(self) -> str:
        return "stdin" if self.name == STDIN else Path(self.name).stem or "picture"


def list_inputs(named: list[str], listed_in: str | None, null: bool) -> tuple[list[Input], bool]:
    """All pictures in order, and whether they are a batch (several, a folder, or a list).

    UsageError when none is named, InputError for a folder without images or a missing list.
    """
    found: list[Input] = []
    batch = listed_in is not None
    for name in named:
        if not name:
            raise UsageError("--image is empty.", "Is a shell variable unset?")
        inside = _in_folder(Path(name)) if name != STDIN else None
        batch = batch or inside is not None
        found.extend([Input(name)] if inside is None else inside)
    if listed_in is not None:
        found.extend(map(Input, read_list(listed_in, null)))
    if not found:
        raise UsageError("No picture is named.", "Pass --image PATH.")
    if sum(source.name == STDIN for source in found) + (listed_in == STDIN) > 1:
        raise UsageError("Standard input can be read once only.")
    return found, batch or len(found) > 1


def read_input(name: str, max_side: int | None) -> "Picture":
    """The picture at this path, or on standard input for `-`."""
    from paintproc.media import MAX_BYTES, load_picture

    if name == STDIN:
        return load_picture(read_stream(sys.stdin.buffer, MAX_BYTES + 1), max_side=max_side)
    return load_picture(name, max_side=max_side)


def _in_folder(folder: Path) -> list[Input] | None:
    """The images in a folder and its subfolders, sorted by path; None where `folder` is not a folder.

    Hidden files and folders are left out, and folders that paintproc wrote: sequences and datasets.
    """
    from paintproc.media import SUFFIXES
    from paintproc.sequence import RECORD

    made = (RECORD, "dataset.json")
    try:
        if not folder.is_dir():
            return None
    except OSError as error:
        raise _unreadable(folder, error) from error
    found: list[Path] = []

    def stop(error: OSError) -> None:
        raise _unreadable(Path(error.filename), error) from error

    for base, folders, names in os.walk(folder, onerror=stop):
        folders[:] = [
            name for name in folders if name[0] != "." and not any(Path(base, name, mark).is_file() for mark in made)
        ]
        paths = (Path(base, name) for name in names if name[0] != ".")
        found += (path for path in paths if path.suffix.lower() in SUFFIXES)
    if not found:
        raise InputError(f"{folder} is a folder without images.")
    found.sort(key=lambda path: os.fsencode(path.relative_to(folder)))
    return [Input(str(path), path.relative_to(folder).parent) for path in found]


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}.")


def read_list(source: str, null: bool) -> list[str]:
    """The paths in a file, one a line or ended by NUL; `-` is standard input. InputError for an empty list."""
    try:
        data = read_stream(sys.stdin.buffer) if source == STDIN else Path(source).read_bytes()
    except OSError as error:
        raise InputError(f"The list {source} cannot be read: {(error.strerror or str(error)).lower()}.") from error
    if not null and b"\0" in data:
        raise InputError(f"The list {source} holds NUL characters.", "Pass --null.")
    names = data.split(b"\0") if null else data.removeprefix(b"\xef\xbb\xbf").splitlines()
    paths = [os.fsdecode(name) for name in names if name]
    if not paths:
        raise InputError(f"The list {source} is empty.")
    return paths
