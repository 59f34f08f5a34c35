"""Finds the inputs: files, folders, patterns and WebDataset tars, with the metadata of each picture."""

import csv
import glob
import hashlib
import io
import itertools
import json
import os
import tarfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from paintproc.errors import InputError, UsageError
from paintproc.media import MAX_BYTES, SUFFIXES

FACTS = {
    "prompt": ("prompt", "text", "caption"),
    "license": ("license", "licence"),
    "origin": ("origin", "url"),
}
"""Facts that are read from metadata, each with the keys under which it is found there."""
METADATA = ("metadata.jsonl", "metadata.csv")
"""Metadata files of an imagefolder."""
TRIES = 3
"""How often to read a file that the system fails to read."""
PAUSE = 0.2
"""Seconds between these tries."""

NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Source:
    """One input: a file, or a member of a tar."""

    name: str
    """Its name in the dataset: the path as given, or the path below the folder that was given; never absolute."""
    path: Path
    """The file, or the tar."""
    size: int = -1
    """Bytes; -1 if not known."""
    offset: int | None = None
    """Where its bytes begin in the tar; None for a file."""
    facts: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    """Prompt, license and origin, if known."""
    skip: str = ""
    """Why it is skipped; empty if it is not."""
    broken: str = ""
    """Why it cannot be read; empty if it can."""


def find_sources(named: Iterable[str]) -> list[Source]:
    """All inputs in order. Of equal files all but the first are marked to be skipped.

    A folder is searched with all folders below it, sorted by name, on every system and in every language alike. A name
    that does not exist and has *, ? or [ in it is a pattern. What cannot be read is an input too, marked as broken, and
    so is a folder, pattern or tar without images if others are named. UsageError if nothing is named, InputError if no
    name leads to an image.
    """
    names = list(named)
    found: list[Source] = []
    problems: list[InputError] = []
    for name in names:
        if not name:
            raise UsageError("An input is empty.", "Is a shell variable not set?")
        try:
            for path in _matches(name):
                found += _sources_in(path, len(names) > 1)
        except InputError as error:
            # beside other names it counts as one bad input
            problems.append(error)
            found.append(Source(_relative_name(Path(name)), Path(name), broken=str(error)))
    if not found:
        raise UsageError("No picture is named.", "Name files, folders or tars.")
    if len(problems) == len(found):
        raise problems[0]
    return mark_equal(found)


def _matches(name: str) -> list[Path]:
    """The path of this name, if it exists; else the paths that fit it as a pattern."""
    if os.path.lexists(name) or not glob.has_magic(name):
        return [Path(name)]
    matches = [Path(match) for match in glob.glob(name, recursive=True)]  # noqa: PTH207 (patterns may be absolute)
    if not matches:
        raise InputError(f"No file fits {name}.")
    return sorted(matches, key=_sort_key)


def _sources_in(path: Path, several: bool) -> list[Source]:
    """The inputs in a folder, a tar or a file. If `several` names were given, those in a folder begin with its name."""
    if path.is_dir():
        return _in_folder(path, f"{_relative_name(path)}/" if several else "")
    return _in_tar(path) if path.suffix == ".tar" else [_file(path, _relative_name(path))]


def read_source(source: Source) -> bytes:
    """The bytes of an input. InputError if it is missing or may not be read, OSError if the system fails repeatedly."""
    if source.broken:
        raise InputError(source.broken)
    for left in reversed(range(TRIES)):
        try:
            with source.path.open("rb") as file:
                if source.offset is None:
                    data = file.read(MAX_BYTES + 1)
                else:
                    file.seek(source.offset)
                    data = file.read(source.size)
            if source.offset is not None and len(data) != source.size:
                raise InputError(f"{source.name} is cut off.")
            return data
        except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
            raise InputError(f"{source.name} cannot be read: {(error.strerror or str(error)).lower()}.") from error
        except OSError:
            if not left:
                raise
            time.sleep(PAUSE)
    raise AssertionError


def mark_equal(sources: list[Source]) -> list[Source]:
    """`sources` with all but the first of equal files marked to be skipped. Only files of the same size are read."""
    result = list(sources)
    by_size: dict[int, list[int]] = {}
    for place, source in enumerate(sources):
        if not source.broken and source.size >= 0:
            by_size.setdefault(source.size, []).append(place)
    for places in by_size.values():
        first: dict[str, int] = {}
        for place in places if len(places) > 1 else ():
            try:
                digest = hashlib.sha256(read_source(sources[place])).hexdigest()
            except (OSError, InputError):
                continue
            if digest in first:
                original = sources[first[digest]].name
                result[place] = replace(sources[place], skip=f"the same picture as {original}")
            else:
                first[digest] = place
    return result


def inputs_digest(sources: Iterable[Source]) -> str:
    """16 hex digits from the names, sizes and facts of the inputs, in order."""
    lines = "".join(f"{source.name!r} {source.size} {sorted(source.facts.items())!r}\n" for source in sources)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def _sort_key(path: Path) -> bytes:
    """The same order on every system and in every language."""
    return os.fsencode(path.as_posix())


def _relative_name(path: Path) -> str:
    """The path as given; of an absolute one the last part, so that names do not depend on the machine."""
    return path.name if path.is_absolute() else path.as_posix()


def _file(path: Path, name: str, facts: Mapping[str, str] | None = None) -> Source:
    # bytes of a name that are not valid text are spelled out
    name = os.fsencode(name).decode("utf-8", "backslashreplace")
    try:
        if not path.is_file():
            what = "does not exist" if not path.exists() else "is not a regular file"
            return Source(name, path, broken=f"{name} {what}.")
        size = path.stat().st_size
        return Source(name, path, size, facts=facts or NOTHING, broken="" if size else f"{name} is empty.")
    except OSError as error:
        return Source(name, path, broken=f"{name} cannot be read: {(error.strerror or str(error)).lower()}.")


def _in_folder(folder: Path, prefix: str) -> list[Source]:
    """The pictures below a folder, sorted by name; hidden files and folders and dataset folders are left out."""
    paths: list[Path] = []
    known: dict[Path, dict[str, str]] = {}
    broken: list[Source] = []
    for base, folders, names in os.walk(folder, onerror=_raise_unreadable):
        folders[:] = [
            name for name in folders if not name.startswith(".") and not Path(base, name, "dataset.json").is_file()
        ]
        for name in names:
            path = Path(base, name)
            if name in METADATA:
                try:
                    known |= _metadata(path)
                except InputError as error:
                    broken.append(Source(prefix + path.relative_to(folder).as_posix(), path, broken=str(error)))
            elif path.suffix.lower() in SUFFIXES and not name.startswith("."):
                paths.append(path)
    if not paths:
        raise InputError(f"{folder} is a folder without images.")
    paths.sort(key=lambda path: _sort_key(path.relative_to(folder)))
    found = [_file(path, prefix + path.relative_to(folder).as_posix(), known.get(path)) for path in paths]
    return found + sorted(broken, key=lambda source: source.name)


def _raise_unreadable(error: OSError) -> None:
    raise InputError(f"{error.filename} cannot be read: {(error.strerror or str(error)).lower()}.") from error


def _metadata(path: Path) -> dict[Path, dict[str, str]]:
    """The facts that a metadata file of an imagefolder gives about each picture. InputError if it is damaged."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".csv":
            rows: list[Any] = list(csv.DictReader(io.StringIO(text, newline="")))
        else:
            rows = [json.loads(line) for line in text.split("\n") if line.strip()]
        return {path.parent / str(row["file_name"]): _facts(row) for row in rows if "file_name" in row}
    except (OSError, ValueError, TypeError, RecursionError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error


def _facts(row: Any) -> dict[str, str]:
    """The facts in one row of metadata, or in a JSON file of a tar."""
    found = {}
    for fact, aliases in FACTS.items() if isinstance(row, dict) else ():
        value = next((row[name] for name in aliases if isinstance(row.get(name), str) and row[name].strip()), None)
        if value is not None:
            # lone surrogates, which JSON allows, cannot be encoded
            found[fact] = " ".join(value.encode("utf-8", "replace").decode().split())
    return found


def _in_tar(path: Path) -> list[Source]:
    """The pictures of a WebDataset tar; `<key>.txt` is a prompt, `<key>.json` holds facts."""
    members, broken = _members(path)
    found: list[Source] = []
    for _, group in itertools.groupby(members, key=lambda member: _key(member[0])):
        found += _sample(path, list(group))
    if broken:
        found.append(Source(_relative_name(path), path, broken=f"{_relative_name(path)} {broken}."))
    if not found:
        raise InputError(f"{path} is a tar without images.")
    return found


def _members(path: Path) -> tuple[list[tuple[str, int, int]], str]:
    """Name, size and offset of each file in a tar; and why the tar could not be read to its end, empty if it could."""
    members: list[tuple[str, int, int]] = []
    try:
        end = path.stat().st_size
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.offset_data + member.size > end:
                    return members, "is cut off"
                if member.isreg():
                    members.append((member.name, member.size, member.offset_data))
    except FileNotFoundError:
        return members, "does not exist"
    except (tarfile.TarError, OSError, ValueError) as error:
        return members, f"is damaged, or no plain tar: {error}"
    return members, ""


def _key(name: str) -> str:
    """What the files of one WebDataset sample have in common: the path up to the first dot of the file's name."""
    folder, _, base = name.rpartition("/")
    return f"{folder}/{base.split('.', 1)[0]}"


def _sample(tar: Path, group: list[tuple[str, int, int]]) -> list[Source]:
    """The pictures among the files of one sample, with the facts from its text and JSON files."""
    facts: dict[str, str] = {}
    with tar.open("rb") as file:
        for name, size, offset in group:
            if name.endswith((".txt", ".json")) and size < 1 << 20:
                file.seek(offset)
                text = file.read(size).decode(errors="replace")
                facts |= _facts({"prompt": text}) if name.endswith(".txt") else _facts(_parsed(text))
    return [
        Source(os.fsencode(f"{tar.name}/{name}").decode("utf-8", "backslashreplace"), tar, size, offset, facts)
        for name, size, offset in group
        if Path(name).suffix.lower() in SUFFIXES and not Path(name).name.startswith(".")
    ]


def _parsed(text: str) -> Any:
    """The value of a JSON text; None if it is damaged."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
