"""The dataset folder: many sequences, written by data builders, read by training and evaluation.

    dataset.json              format, settings, inputs; the counts are added at the end
    inputs.jsonl              what became of each input
    failures.jsonl            the inputs that failed, if any
    train/metadata.jsonl      the index: one line for each sequence, sorted by id, made from the records
    train/<id>/000.png ...    one item: frames, sequence.json (its record) [strokes.safetensors]
    validation/...

An item is the folder of one sequence; it appears whole. Its id depends on the source image and the settings, its split
on the source image alone, so all sequences of one painting are in the same split. Hugging Face's imagefolder reads the
folder as it is: the key `file_names` gives each row a list of images.
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from paintproc.errors import InputError, OutputError
from paintproc.files import ENDING, discard, plain_errors, remove_dead_scratch, whole_file, whole_folder
from paintproc.media import load_picture, save_png
from paintproc.sequence import RECORD, PaintingSequence, differences, read_record, write_record
from paintproc.strokes.values import load_strokes, strokes_to_bytes
from paintproc.version import __version__

FORMAT = "paintproc-dataset-1"
INDEX, SUMMARY, STROKES = "metadata.jsonl", "dataset.json", "strokes.safetensors"
INPUTS, FAILURES = "inputs.jsonl", "failures.jsonl"
SPLITS = ("train", "validation")
ITEM = re.compile("[0-9a-f]{16}")
OURS = re.compile(
    r"(dataset\.json|(inputs|failures|shards)\.jsonl|parts(/[0-9]{5}-of-[0-9]{5}\.jsonl)?"
    r"|(train|validation)(-[0-9]{5,}\.tar|/metadata\.jsonl|(/[0-9a-f]{16}(/(?P<file>[^/]+))?)?))"
)
"""The paths in a dataset folder that belong to it."""
FAILURE = ("input", "error", "exit_code")
"""The keys of a line of failures.jsonl."""
OUTCOMES = ("done", "skipped", "failed")
"""What can become of an input."""
VALIDATION = 0.05
"""Share of the source images whose sequences are in the validation split."""
FACTS = ("prompt", "source", "method", "seed", "license", "origin")
"""Keys of a sequence's `info` that are copied into the index."""


def split_of(source: str) -> str:
    """The split of all sequences of a source image; `source` is the sha256 of its file."""
    return "validation" if int(source[:8], 16) < VALIDATION * 2**32 else "train"


def item_id(source: str, facts: Mapping[str, Any]) -> str:
    """16 hex digits, from the sha256 of the source image's file and all facts that decide the sequence."""
    text = json.dumps(facts, sort_keys=True, allow_nan=False)
    return hashlib.sha256(f"{source} {text}".encode()).hexdigest()[:16]


def write_item(dataset: Path, sequence: PaintingSequence) -> Path:
    """Add a sequence to a dataset folder, whole or not at all. Returns the item's folder.

    `sequence.info` holds `id`, `input.sha256` and the keys in `FACTS`. An item that is already whole stays as it is;
    one with files missing is replaced. Many processes may write at once, also the same item. OutputError where the
    file system refuses. What dead processes left is not removed here but by `begin_dataset`.
    """
    name, source = sequence.info["id"], sequence.info["input"]["sha256"]
    item = dataset / split_of(source) / name
    if whole_item(item) is not None:
        return item

    def refuse_whole() -> None:
        if whole_item(item) is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(item))

    comment = f"paintproc {__version__}; {sequence.info.get('provenance', '')}"
    try:
        with whole_folder(item, replace=refuse_whole, tidy=False) as scratch:
            frames = [f"{k:03d}.png" for k in range(len(sequence))]
            for frame, pixels in zip(frames, sequence.frames, strict=True):
                save_png(scratch / frame, pixels, {"Software": "paintproc", "Comment": comment})
            if sequence.strokes is not None:
                (scratch / STROKES).write_bytes(strokes_to_bytes(sequence.strokes, {"provenance": comment}))
            write_record(sequence, scratch, frames)
    except OutputError as error:
        reason = getattr(error.__cause__, "errno", None)
        if reason not in (errno.EEXIST, errno.ENOTEMPTY) or whole_item(item) is None:
            raise
        # another process was faster
    return item


def whole_item(item: Path) -> dict[str, Any] | None:
    """The record of an item, if it fits its folder and all its files are there; else None."""
    record = read_record(item)
    try:
        if record is None or record["id"] != item.name or split_of(record["input"]["sha256"]) != item.parent.name:
            return None
        index_line(item, record)
        return record if all((item / name).is_file() for name in record["files"]) else None
    except (KeyError, TypeError, ValueError, AttributeError, OSError):
        return None


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
        summary = _read_begun(folder)
    except InputError as error:
        raise OutputError(error.message, "Choose another --output.") from error
    for key, found, wanted in differences(summary, _summary(facts)):
        raise OutputError(
            f"{folder} holds another dataset: its {key} is {found!r}, not {wanted!r}.",
            "Choose another --output, or pass --overwrite.",
        )
    return "finished" if "counts" in summary else "begun"


def begin_dataset(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the summary of a dataset, without counts, unless it is there; remove what dead processes left.

    OutputError as for `inspect_dataset`.
    """
    with plain_errors(folder):
        for part in (folder, *(folder / split for split in SPLITS)):
            remove_dead_scratch(part)
    if inspect_dataset(folder, facts) == "absent":
        try:
            _write(folder / SUMMARY, _json(_summary(facts)), replace=False)
        except OutputError as error:
            # another process may have written the summary first: then it must say the same
            if not isinstance(error.__cause__, FileExistsError) or inspect_dataset(folder, facts) == "absent":
                raise


def drop_unfinished(folder: Path) -> None:
    """Remove all unfinished work in a dataset folder, also that of running processes."""
    for path in (path for part in (folder, *(folder / split for split in SPLITS)) for path in part.glob(f".*{ENDING}")):
        discard(path)


def refuse_foreign(folder: Path) -> None:
    """OutputError if a path holds anything but a dataset of ours, in a folder or in shards."""
    with plain_errors(folder):
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return
        try:
            _read_begun(folder)
        except InputError:
            raise OutputError(f"{folder} is no dataset; it is never overwritten.", "Choose another --output.") from None
        foreign = find_foreign(folder)
    if foreign:
        raise OutputError(f"{folder} holds {foreign}, which is not ours.", "Move it, or choose another --output.")


def find_foreign(folder: Path) -> str | None:
    """The first path below a folder that belongs neither to a dataset or its shards, nor to unfinished work on them."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
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


def finish_dataset(folder: Path, counts: Mapping[str, int], inputs: Sequence[Mapping[str, Any]] = ()) -> None:
    """Write the index of each split, the lists of inputs and failures, and last the counts.

    The index comes from the records of the items; the same items give the same bytes. Where `inputs` name their
    sequences, other items are removed: those of an input that failed half-way, or of a file that has changed since.
    InputError where the dataset was not begun, or a named sequence is missing.
    """
    summary = _read_begun(folder)
    named = {name for line in inputs for name in line.get("sequences", ())}
    all_named = bool(inputs) and all("sequences" in line for line in inputs if line["outcome"] == "done")
    sizes = {}
    for split in SPLITS:
        with plain_errors(folder / split):
            # left by workers that died
            remove_dead_scratch(folder / split)
            for item in folder.glob(f"{split}/*") if all_named else ():
                if ITEM.fullmatch(item.name) and item.name not in named:
                    shutil.rmtree(item)
        lines = [json.dumps(index_line(item, record), ensure_ascii=False) for item, record in _items(folder / split)]
        sizes[split] = len(lines)
        if lines or (folder / split).is_dir():
            _write(folder / split / INDEX, "".join(f"{line}\n" for line in lines))
    if all_named and sum(sizes.values()) != len(named):
        raise InputError(f"{folder} lacks sequences of its inputs.", "Run the command again.")
    for name, listed in ((INPUTS, inputs), (FAILURES, failures_among(inputs))):
        if listed:
            _write(folder / name, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in listed))
        else:
            with plain_errors(folder / name):
                (folder / name).unlink(missing_ok=True)
    _write(folder / SUMMARY, _json(summary | {"counts": dict(counts), "splits": sizes}))


def failures_among(inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The lines of failures.jsonl, from those of inputs.jsonl."""
    return [{key: line[key] for key in FAILURE} for line in inputs if line["outcome"] == "failed"]


class Dataset:
    """The sequences of one split, by number; each is read from disk when it is asked for.

    InputError if `folder` is no finished dataset folder, or has no such split.
    """

    def __init__(self, folder: str | Path, split: str = "train") -> None:
        self.folder = Path(folder) / split
        self.summary = read_summary(Path(folder))
        self.index: list[dict[str, Any]] = []
        if split not in self.summary["splits"]:
            raise InputError(f"{folder} has no split {split!r}.", f"It has {' and '.join(self.summary['splits'])}.")
        if self.summary["splits"][split] == 0:
            # it has no folder and no index
            return
        try:
            self.index = [json.loads(line) for line in read_lines(self.folder / INDEX)]
        except (OSError, ValueError) as error:
            raise InputError(f"{self.folder / INDEX} cannot be read: {error}.") from error

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, place: int) -> PaintingSequence:
        return read_item(self.folder / self.index[place]["id"])

    def __iter__(self) -> Iterator[PaintingSequence]:
        return (self[place] for place in range(len(self)))


def read_summary(folder: Path) -> dict[str, Any]:
    """What dataset.json says. InputError if `folder` is no finished dataset folder."""
    summary = _read_begun(folder)
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
    except (OSError, ValueError) as error:
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


def _read_begun(folder: Path) -> dict[str, Any]:
    """What dataset.json says, finished or not. InputError if there is no such file."""
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        if summary["format"] != FORMAT:
            raise ValueError(f"its format is {summary['format']!r}")
        return summary
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder} is no dataset folder: {error}.") from error


def read_item(item: Path) -> PaintingSequence:
    """The sequence in an item's folder. InputError if it is not whole."""
    record = read_record(item)
    if record is None:
        raise InputError(f"{item} holds no sequence.")
    frames = record.pop("frames")
    files = record.pop("files")
    del record["format"]
    try:
        return PaintingSequence(
            frames=[load_picture(item / frame["file"]).pixels for frame in frames],
            progress=np.array([frame["progress"] for frame in frames]),
            stages=[frame["stage"] for frame in frames],
            captions=[frame["caption"] for frame in frames],
            seconds=np.array([frame["seconds"] for frame in frames]),
            strokes=load_strokes(item / STROKES) if STROKES in files else None,
            info=record,
        )
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{item / RECORD} does not fit its files: {error}.") from error


def _items(split: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The whole items of a split, sorted by id, with their records."""
    for item in sorted(split.iterdir()) if split.is_dir() else []:
        record = whole_item(item) if ITEM.fullmatch(item.name) else None
        if record is not None:
            yield item, record


def index_line(item: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """The line of the index for an item with this record."""
    frames = record["frames"]
    return {
        "file_names": [f"{item.name}/{frame['file']}" for frame in frames],
        "id": record["id"],
        **{name: record.get(name) for name in FACTS},
        "sha256": record["input"]["sha256"],
        "progress": [frame["progress"] for frame in frames],
        "stages": [frame["stage"] for frame in frames],
        "captions": [frame["caption"] for frame in frames],
        "seconds": [frame["seconds"] for frame in frames],
    }


def _summary(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {"format": FORMAT, "tool": "paintproc", "version": __version__, **facts}


def _unfinished(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(ENDING)


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _write(path: Path, text: str, replace: bool = True) -> None:
    """Write a file, unless it has exactly these bytes already."""
    with plain_errors(path):
        if path.is_file() and path.read_bytes() == text.encode():
            return
    with whole_file(path, replace=replace) as scratch:
        scratch.write_text(text, encoding="utf-8", newline="\n")
