"""The dataset folder: many sequences, written by data builders, read by training and evaluation.

    dataset.json              format, settings, counts; written last
    train/metadata.jsonl      one line a sequence, sorted by id; made from the records, never appended to
    train/<id>/000.png ...    sequence.json (its record) [strokes.safetensors]
    validation/...

An item is a folder that appears whole. Its id comes from the source image and the settings, its split
from the source image alone, so all sequences of one painting fall on one side. The folder opens as it
is with Hugging Face's imagefolder, whose key `file_names` gives a list of images a row.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from paintproc.errors import InputError, OutputError
from paintproc.files import file_digest, plain_errors, whole_file, whole_folder
from paintproc.media import load_picture, save_png
from paintproc.sequence import RECORD, PaintingSequence, read_record, write_record
from paintproc.strokes.values import load_strokes, strokes_to_bytes
from paintproc.version import __version__

FORMAT = "paintproc-dataset-1"
INDEX, SUMMARY, STROKES = "metadata.jsonl", "dataset.json", "strokes.safetensors"
SPLITS = ("train", "validation")
VALIDATION = 0.05
"""Part of the source images whose sequences fall to the validation split."""
FACTS = ("prompt", "source", "method", "seed", "license", "origin")
"""What a line of the index says of its sequence, beside its frames: from the sequence's `info`."""


def split_of(source: str) -> str:
    """The split of every sequence of a source image, by the sha256 of its file."""
    return "validation" if int(source[:8], 16) < VALIDATION * 2**32 else "train"


def item_id(source: str, facts: Mapping[str, Any]) -> str:
    """16 hex digits: from the sha256 of the source image's file and whatever else decides the sequence."""
    text = json.dumps(facts, sort_keys=True, allow_nan=False)
    return hashlib.sha256(f"{source} {text}".encode()).hexdigest()[:16]


def write_item(dataset: Path, sequence: PaintingSequence) -> Path:
    """Add a sequence to a dataset folder, whole or not at all; the item's folder.

    `sequence.info` holds `id`, `input.sha256` and the facts of the index. An item that is there is
    left as it is. Many processes may write at once, also the same item. OutputError where the
    file system refuses.
    """
    name, source = sequence.info["id"], sequence.info["input"]["sha256"]
    item = dataset / split_of(source) / name
    if read_record(item) is not None:
        return item
    comment = f"paintproc {__version__}; {sequence.info.get('provenance', '')}"
    try:
        with whole_folder(item) as scratch:
            frames = [f"{k:03d}.png" for k in range(len(sequence))]
            for frame, pixels in zip(frames, sequence.frames, strict=True):
                save_png(scratch / frame, pixels, {"Software": "paintproc", "Comment": comment})
            if sequence.strokes is not None:
                (scratch / STROKES).write_bytes(strokes_to_bytes(sequence.strokes, {"provenance": comment}))
            write_record(sequence, scratch, frames)
    except OutputError:
        if read_record(item) is None:
            raise
        # another process was faster
    return item


def finish_dataset(dataset: Path, settings: Mapping[str, Any], counts: Mapping[str, int]) -> None:
    """Write the index of each split and the summary, from the records of the items.

    Whoever ends last makes them; the same items give the same bytes.
    """
    sizes = {}
    for split in SPLITS:
        lines = [json.dumps(_line(item, record), ensure_ascii=False) for item, record in _items(dataset / split)]
        sizes[split] = len(lines)
        if lines or (dataset / split).is_dir():
            _write(dataset / split / INDEX, "".join(f"{line}\n" for line in lines))
    summary = {"format": FORMAT, "tool": "paintproc", "version": __version__, "settings": dict(settings)}
    summary |= {"counts": dict(counts), "splits": sizes}
    _write(dataset / SUMMARY, json.dumps(summary, indent=1, ensure_ascii=False) + "\n")


class Dataset:
    """The sequences of one split, by place; reads what it is asked for, when it is asked.

    InputError where `folder` is no finished dataset folder.
    """

    def __init__(self, folder: str | Path, split: str = "train") -> None:
        self.folder = Path(folder) / split
        self.summary = read_summary(Path(folder))
        try:
            lines = (self.folder / INDEX).read_text(encoding="utf-8").splitlines()
            self.index: list[dict[str, Any]] = [json.loads(line) for line in lines]
        except (OSError, ValueError) as error:
            raise InputError(f"{self.folder / INDEX} cannot be read: {error}.") from error

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, place: int) -> PaintingSequence:
        return read_item(self.folder / self.index[place]["id"])

    def __iter__(self) -> Iterator[PaintingSequence]:
        return (self[place] for place in range(len(self)))


def read_summary(folder: Path) -> dict[str, Any]:
    """What dataset.json says. InputError where `folder` is no finished dataset folder."""
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        if summary["format"] != FORMAT:
            raise ValueError(f"its format is {summary['format']!r}")
        return summary
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder} is no finished dataset folder: {error}.") from error


def read_item(item: Path) -> PaintingSequence:
    """The sequence in an item's folder. InputError where it is not whole."""
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


def verify_dataset(folder: Path) -> list[str]:
    """Read every byte of a dataset folder; what is wrong, a sentence each, nothing where all is well.

    InputError where it is no finished dataset folder.
    """
    summary, problems = read_summary(folder), []
    for split in SPLITS:
        lines = []
        for item, record in _items(folder / split):
            lines.append(json.dumps(_line(item, record), ensure_ascii=False))
            problems += _wrong_in(item, record)
            if split_of(record["input"]["sha256"]) != split:
                problems.append(f"{split}/{item.name} belongs to another split.")
        index = folder / split / INDEX
        if (index.read_text(encoding="utf-8").splitlines() if index.is_file() else []) != lines:
            problems.append(f"{split}/{INDEX} does not list the sequences that are there.")
        if summary["splits"].get(split) != len(lines):
            problems.append(f"{SUMMARY} counts {summary['splits'].get(split)} in {split}, and there are {len(lines)}.")
        for path in sorted((folder / split).iterdir()) if (folder / split).is_dir() else []:
            if path.name != INDEX and (not path.is_dir() or read_record(path) is None):
                problems.append(f"{split}/{path.name} is no sequence.")
    return problems


def _items(split: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The items of a split, sorted by id, with their records."""
    for item in sorted(split.iterdir()) if split.is_dir() else []:
        if item.is_dir() and not item.name.startswith("."):
            record = read_record(item)
            if record is not None:
                yield item, record


def _line(item: Path, record: dict[str, Any]) -> dict[str, Any]:
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


def _wrong_in(item: Path, record: dict[str, Any]) -> list[str]:
    where = f"{item.parent.name}/{item.name}"
    problems = [] if record.get("id") == item.name else [f"{where} says that its id is {record.get('id')!r}."]
    there = {path.relative_to(item).as_posix() for path in item.rglob("*") if path.is_file()} - {RECORD}
    problems += [f"{where}/{name} is missing." for name in sorted(set(record["files"]) - there)]
    problems += [f"{where}/{name} is not in the record." for name in sorted(there - set(record["files"]))]
    for name in sorted(there & set(record["files"])):
        if file_digest(item / name) != record["files"][name]:
            problems.append(f"{where}/{name} was changed since it was made.")
    return problems


def _write(path: Path, text: str) -> None:
    """Write a file unless it is there with these very bytes."""
    with plain_errors(path):
        if path.is_file() and path.read_bytes() == text.encode():
            return
    with whole_file(path, replace=True) as scratch:
        scratch.write_text(text, encoding="utf-8")
