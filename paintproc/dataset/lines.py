"""What became of each input while a dataset grows: `parts/`, and at the end `inputs.jsonl`.

parts/00001-of-00004.0a1b2c3d.jsonl   a process's lines, as they come; the last one may be torn
parts/00001-of-00004.jsonl            all lines of a part of the inputs, when it is finished
"""

import contextlib
import hashlib
import json
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from paintproc.dataset.folder import parse_input, read_lines
from paintproc.dataset.layout import INPUTS
from paintproc.errors import InputError, OutputError
from paintproc.files import plain_errors, remove_dead_scratch, whole_file

PARTS = "parts"


class Lines(Collection[Mapping[str, Any]]):
    """The lines about inputs, by the input's number. They are kept as text: a million take little memory."""

    def __init__(self) -> None:
        self._texts: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._texts)

    def __contains__(self, place: object) -> bool:
        return place in self._texts

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The lines in the order of their inputs."""
        return (json.loads(self._texts[place]) for place in sorted(self._texts))

    def __getitem__(self, place: int) -> dict[str, Any]:
        return json.loads(self._texts[place])

    def __setitem__(self, place: int, line: Mapping[str, Any]) -> None:
        self._texts[place] = json.dumps(line, ensure_ascii=False)

    def get(self, place: int) -> dict[str, Any] | None:
        text = self._texts.get(place)
        return None if text is None else json.loads(text)

    def drop(self, places: Collection[int]) -> None:
        for place in places:
            del self._texts[place]


def batch_name(batch: Mapping[str, Any]) -> str:
    """What stands for a batch of inputs in the names of files: 8 hex digits."""
    return hashlib.sha256(json.dumps(batch, sort_keys=True).encode()).hexdigest()[:8]


def known_lines(folder: Path, batches: Sequence[Mapping[str, Any]]) -> Lines:
    """The lines of a dataset that was begun: from `inputs.jsonl`, and from the parts of its `batches`.

    OutputError if one is damaged.
    """
    lines, firsts, first = Lines(), dict[str, tuple[int, int]](), 0
    for batch in batches:
        firsts[batch_name(batch)] = first, first + batch["count"]
        first += batch["count"]
    try:
        if (folder / INPUTS).exists():
            for place, text in enumerate(read_lines(folder / INPUTS)):
                lines[place] = parse_input(text)
        for part in sorted((folder / PARTS).glob("*.jsonl")):
            name = part.name.split(".")[1]
            if name in firsts:
                _add_part(part, lines, *firsts[name])
    except FileNotFoundError:
        # another process has finished the dataset meanwhile, and removed the parts
        return known_lines(folder, batches)
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        text = f"What {folder} says of its inputs is damaged: {error}."
        raise OutputError(text, f"Remove {INPUTS} and {PARTS} there, and run the command again.") from error
    return lines


def _add_part(part: Path, lines: Lines, first: int, end: int) -> None:
    """Add the lines of a part of the batch with the places `first` to `end`.

    A process that was killed may have torn its last line. Of two lines about an input the one that says more counts.
    """
    texts = read_lines(part)
    for number, text in enumerate(texts):
        try:
            line = parse_input(text)
            place = first + int(line.pop("place"))
        except ValueError:
            if number == len(texts) - 1 and _is_running_list(part):
                return
            raise
        known = lines.get(place)
        if first <= place < end and (known is None or _worth(line) > _worth(known)):
            lines[place] = line


def _worth(line: Mapping[str, Any]) -> int:
    """How much a line says: an input that is done, skipped, failed by its own fault, or for another reason."""
    if line["outcome"] != "failed":
        return {"done": 3, "skipped": 2}[line["outcome"]]
    return int(line["exit_code"] == InputError.exit_code)


def _is_running_list(part: Path) -> bool:
    """Whether this is a process's own list, with 8 hex digits after those of the batch."""
    return part.name.count(".") == 3


def parts_are_there(folder: Path, count: int, batch: Mapping[str, Any]) -> bool:
    """Whether each of `count` parts of a batch has been finished, or may have been with another count."""
    ending = f".{batch_name(batch)}.jsonl"
    names = {path.name for path in (folder / PARTS).glob(f"*{ending}")}
    wanted = {f"{index:05d}-of-{count:05d}{ending}" for index in range(count)}
    return wanted <= names or any(not name.endswith(f"-of-{count:05d}{ending}") for name in names)


class Journal:
    """A process's own list of lines, written as they come; a killed run goes on from it."""

    def __init__(self, folder: Path, shard: tuple[int, int], batch: Mapping[str, Any]) -> None:
        name = f"{shard[0]:05d}-of-{shard[1]:05d}.{batch_name(batch)}.{secrets.token_hex(4)}.jsonl"
        self.path = folder / PARTS / name
        self.file: IO[str] | None = None

    def add(self, place: int, line: Mapping[str, Any]) -> None:
        with plain_errors(self.path):
            if self.file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.file = self.path.open("x", encoding="utf-8", newline="\n")
            self.file.write(json.dumps({"place": place} | dict(line), ensure_ascii=False) + "\n")
            self.file.flush()

    def close(self) -> None:
        if self.file is not None:
            with contextlib.suppress(OSError):
                self.file.close()
            self.file = None

    def discard(self) -> None:
        """Remove the list: what it says stands elsewhere."""
        self.close()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


def write_part(
    folder: Path, shard: tuple[int, int], batch: Mapping[str, Any], lines: Lines, places: range, first: int
) -> None:
    """Write the lines about a process's part of a batch, whose first input has the place `first`, into `parts/`."""
    name = f"{shard[0]:05d}-of-{shard[1]:05d}.{batch_name(batch)}.jsonl"
    for last in (False, True):
        try:
            with (
                whole_file(folder / PARTS / name, replace=True) as scratch,
                scratch.open("w", encoding="utf-8", newline="\n") as file,
            ):
                for place in places:
                    file.write(json.dumps({"place": place - first} | lines[place], ensure_ascii=False) + "\n")
            return
        except OutputError:
            # the process that finishes the dataset removes the folder, perhaps just now
            if last:
                raise


def remove_parts(folder: Path) -> None:
    parts = folder / PARTS
    with contextlib.suppress(OSError):
        remove_dead_scratch(parts)
        for part in parts.glob("*.jsonl"):
            part.unlink(missing_ok=True)
        parts.rmdir()
