"""The dataset folder: begun, filled with items (items.py), finished; layout.py says what lies where."""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from paintproc.building import FAILURE, FAILURES
from paintproc.dataset.items import whole_item
from paintproc.dataset.layout import (
    FORMATS,
    INDEX,
    INPUTS,
    ITEM,
    KEPT,
    OURS,
    PICTURES,
    SCENES,
    SHARDS,
    SPLITS,
    SUMMARY,
    ItemLayout,
)
from paintproc.errors import InputError, OutputError
from paintproc.files import (
    ENDING,
    discard,
    file_digest,
    plain_errors,
    remove_dead_scratch,
    remove_folder,
    scratch_folder,
    whole_file,
)
from paintproc.sequence import RECORD, differences, read_record
from paintproc.version import __version__

OUTCOMES = ("done", "skipped", "failed")
"""What can become of an input."""
UPGRADE = "`paintproc dataset upgrade` writes it anew in the current format."


def inspect_dataset(folder: Path, facts: Mapping[str, Any]) -> Literal["absent", "begun", "finished"]:
    """Whether the dataset of these facts is absent from a folder, begun or finished there.

    OutputError if the folder holds other files, or a dataset of other facts; it names the first difference.
    """
    with plain_errors(folder):
        # the files first, then the summary: a process that begins the dataset just now writes the summary first
        used = folder.exists() and (not folder.is_dir() or any(not _unfinished(path) for path in folder.iterdir()))
        if not (folder / SUMMARY).exists():
            if used:
                raise OutputError(f"{folder} exists already and is no dataset folder.", "Choose another --output.")
            return "absent"
    try:
        summary = read_begun(folder)
    except InputError as error:
        raise OutputError(error.message, "Choose another --output.") from error
    if summary["format"] != FORMATS[0]:
        raise OutputError(f"{folder} is a dataset of an older format, {summary['format']}.", UPGRADE)
    for key, found, wanted in differences(summary, _summary(facts)):
        raise OutputError(
            f"{folder} holds another dataset: its {key} is {found!r}, not {wanted!r}.",
            "Choose another --output, or pass --overwrite.",
        )
    return "finished" if "counts" in summary else "begun"


def begin_dataset(folder: Path, facts: Mapping[str, Any], replace: bool = False) -> None:
    """Write the summary of a dataset, without counts, unless it is there; remove what dead processes left.

    With `replace` a summary of other facts is replaced. OutputError as for `inspect_dataset`.
    """
    with plain_errors(folder):
        for part in _folders(folder):
            remove_dead_scratch(part)
    if replace or inspect_dataset(folder, facts) == "absent":
        try:
            write_text(folder / SUMMARY, _json(_summary(facts)), replace=replace)
        except OutputError as error:
            # another process may have written the summary first: then it must say the same
            if not isinstance(error.__cause__, FileExistsError) or inspect_dataset(folder, facts) == "absent":
                raise


def drop_unfinished(folder: Path) -> None:
    """Remove all unfinished work in a dataset folder, also that of running processes."""
    for path in (path for part in _folders(folder) for path in part.glob(f".*{ENDING}")):
        discard(path)


def _folders(folder: Path) -> list[Path]:
    """The folders of a dataset in which files and items appear. OutputError where one of them is a link."""
    for part in (folder / split / kind for split in SPLITS for kind in (".", PICTURES, SCENES)):
        if part.is_symlink():
            raise OutputError(f"{part} is a link, which is not followed.", "Put a folder there.")
    return [folder, *(folder / split / part for split in SPLITS for part in (".", PICTURES, SCENES))]


def refuse_foreign(folder: Path) -> None:
    """OutputError if a path holds anything but a dataset of ours, in a folder or in shards."""
    with plain_errors(folder):
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return
        try:
            read_begun(folder)
        except InputError:
            raise OutputError(f"{folder} is no dataset; it is never overwritten.", "Choose another --output.") from None
        foreign = find_foreign(folder)
    if foreign:
        raise _foreign(folder, foreign)


def _foreign(folder: Path, name: str) -> OutputError:
    return OutputError(f"{folder} holds {name}, which is not ours.", "Move it, or choose another --output.")


def find_foreign(folder: Path, below: str = "") -> str | None:
    """The first path below a folder that belongs neither to a dataset or its shards, nor to unfinished work on them.

    `below` is the place of `folder` in the dataset, such as `train/0123456789abcdef/`.
    """
    for path in sorted(folder.rglob("*")):
        name = below + path.relative_to(folder).as_posix()
        if any(_unfinished(Path(part)) for part in name.split("/")):
            continue
        place = OURS.fullmatch(name)
        ours = place is not None and not path.is_symlink()
        if place and place["file"]:
            record = read_record(path.parent)
            ours = ours and record is not None and place["file"] in {RECORD, *record["files"]}
        if not ours:
            return name
    return None


def finish_dataset(folder: Path, counts: Mapping[str, int], inputs: Collection[Mapping[str, Any]] = ()) -> set[str]:
    """Write the index of each split, the lists of inputs and failures, and last the counts.

    The index comes from the records of the items; the same items give the same bytes. Where `inputs` name their
    sequences, other items are removed: those of an input that failed half-way, or of a file that has changed since; and
    so are pictures and scenes that no item needs. Returns the ids of named sequences that are missing; then nothing is
    written. InputError where the dataset was not begun, OutputError where it holds anything that is not ours.
    """
    summary = read_begun(folder)
    named = {name for line in inputs for name in line.get("sequences", ())}
    all_named = bool(inputs) and all("sequences" in line for line in inputs if line["outcome"] == "done")
    sizes, found = {}, set[str]()
    with scratch_folder(folder / INDEX) as scratch:
        for split in SPLITS:
            kept = set[str]()
            sizes[split] = 0
            with (scratch / split).open("w", encoding="utf-8", newline="\n") as lines:
                for layout in layouts(folder / split, named if all_named else None):
                    lines.write(json.dumps(layout.line(), ensure_ascii=False) + "\n")
                    kept.update(layout.kept)
                    sizes[split] += 1
                    if all_named:
                        found.add(layout.provenance.id)
            if all_named and not named - found:
                if read_begun(folder).get("inputs") != summary.get("inputs"):
                    text = f"{folder} was extended by another command at the same time."
                    raise OutputError(text, "Run this one again.")
                _remove_unneeded(folder, split, named, kept)
        if all_named and named - found:
            return named - found
        for split in SPLITS:
            if sizes[split] or (folder / split).is_dir():
                _take_over(scratch / split, folder / split / INDEX)
    _write_lines(folder / INPUTS, inputs)
    _write_lines(folder / FAILURES, failures_among(inputs))
    write_text(folder / SUMMARY, _json(summary | {"counts": dict(counts), "splits": sizes}))
    return set()


def _remove_unneeded(folder: Path, split: str, named: set[str], kept: set[str]) -> None:
    """Remove items that no input names, and pictures and scenes that no item needs."""
    with plain_errors(folder / split):
        for part in _folders(folder):
            # left by workers that died
            remove_dead_scratch(part)
        for item in sorted((folder / split).glob("*")):
            if ITEM.fullmatch(item.name) and item.name not in named:
                foreign = find_foreign(item, f"{split}/{item.name}/")
                if foreign or read_record(item) is None:
                    raise _foreign(folder, foreign or f"{split}/{item.name}")
                remove_folder(item)
        for kind in (PICTURES, SCENES):
            for path in (folder / split / kind).glob("*.png"):
                name = f"{kind}/{path.name}"
                if KEPT.fullmatch(name) and name not in kept:
                    path.unlink(missing_ok=True)


def layouts(split: Path, among: Collection[str] | None = None) -> Iterator[ItemLayout]:
    """The layouts of the whole items of a split, sorted by id; of those `among` these ids, if given."""
    for name in item_names(split):
        layout = whole_item(split / name) if among is None or name in among else None
        if layout is not None:
            yield layout


def item_names(split: Path) -> list[str]:
    """The ids of the items of a split, whole or not, sorted."""
    return sorted(path.name for path in split.iterdir() if ITEM.fullmatch(path.name)) if split.is_dir() else []


def failures_among(inputs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The lines of failures.jsonl, from those of inputs.jsonl."""
    return [{key: line[key] for key in FAILURE} for line in inputs if line["outcome"] == "failed"]


def read_summary(folder: Path) -> dict[str, Any]:
    """What dataset.json says. InputError if `folder` is no finished dataset, in a folder or in shards."""
    summary = read_begun(folder)
    if "counts" not in summary or "splits" not in summary:
        raise InputError(f"{folder} is a dataset that was begun and is not finished.", "Run its command again.")
    for key in ("counts", "splits"):
        values = summary[key]
        if not isinstance(values, dict) or not all(isinstance(value, int) for value in values.values()):
            raise InputError(f"{folder / SUMMARY} is damaged: its {key} are {values!r}.")
    return summary


def read_inputs(folder: Path) -> list[dict[str, Any]]:
    """The lines of inputs.jsonl, in their order; empty if there is no such file. InputError if it is damaged."""
    try:
        return list(map(parse_input, read_lines(folder / INPUTS))) if (folder / INPUTS).exists() else []
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{folder / INPUTS} cannot be read: {error}.") from error


def parse_input(text: str) -> dict[str, Any]:
    """A line of inputs.jsonl. ValueError if it is damaged."""
    line = json.loads(text)
    if not (isinstance(line, dict) and isinstance(line.get("input"), str) and line.get("outcome") in OUTCOMES):
        raise ValueError(f"{text[:60]!r} says nothing of an input")
    if line["outcome"] == "failed" and not all(key in line for key in FAILURE):
        raise ValueError(f"{text[:60]!r} does not say why it failed")
    names = line.get("sequences", [])
    if not (isinstance(names, list) and all(isinstance(name, str) and ITEM.fullmatch(name) for name in names)):
        raise ValueError(f"{text[:60]!r} names no sequences")
    if names and not re.fullmatch("[0-9a-f]{64}", str(line.get("sha256"))):
        raise ValueError(f"{text[:60]!r} does not say which file it was")
    return line


def read_lines(path: Path) -> list[str]:
    """The lines of a file, split at line feeds alone."""
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def read_begun(folder: Path) -> dict[str, Any]:
    """What dataset.json says, finished or not. InputError if there is no such file, or one of another format."""
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        if summary["format"] not in FORMATS:
            raise ValueError(f"its format is {summary['format']!r}")
        return summary
    except OSError as error:
        reason = f"{SUMMARY} cannot be read, {(error.strerror or str(error)).lower()}"
        raise InputError(f"{folder} is no dataset folder: {reason}.") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{folder} is no dataset folder: {error}.") from error


def is_packed(folder: Path) -> bool:
    """Whether a dataset is in shards."""
    return (folder / SHARDS).exists()


def write_text(path: Path, text: str, replace: bool = True) -> None:
    """Write a file, unless it has exactly these bytes already."""
    with plain_errors(path):
        if path.is_file() and path.read_bytes() == text.encode():
            return
    with whole_file(path, replace=replace) as scratch:
        scratch.write_text(text, encoding="utf-8", newline="\n")


def _write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines, unless the file has exactly these; without lines the file is removed."""
    with scratch_folder(path) as scratch:
        written = scratch / path.name
        with written.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        if written.stat().st_size:
            _take_over(written, path)
            return
    with plain_errors(path):
        path.unlink(missing_ok=True)


def _take_over(written: Path, path: Path) -> None:
    """Put a file that was written elsewhere in its place, unless the one there has the same bytes."""
    with plain_errors(path):
        if path.is_file() and file_digest(path) == file_digest(written):
            return
    with whole_file(path, replace=True) as part:
        written.replace(part)


def _summary(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {"format": FORMATS[0], "tool": "paintproc", "version": __version__, **facts}


def _unfinished(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(ENDING)


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
