"""The dataset folder: many sequences, written by data builders, read by training and evaluation.

    dataset.json              format, settings, inputs; last of all the counts
    inputs.jsonl              what became of each input
    failures.jsonl            those that failed, where some did
    train/metadata.jsonl      one line a sequence, sorted by id; made from the records, never appended to
    train/<id>/000.png ...    sequence.json (its record) [strokes.safetensors]
    validation/...

An item is a folder that appears whole. Its id comes from the source image and the settings, its split
from the source image alone, so all sequences of one painting fall on one side. The folder opens as it
is with Hugging Face's imagefolder, whose key `file_names` gives a list of images a row.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from paintproc.errors import InputError, OutputError
from paintproc.files import ENDING, file_digest, plain_errors, remove_dead_scratch, whole_file, whole_folder
from paintproc.media import load_picture, save_png
from paintproc.sequence import RECORD, PaintingSequence, differences, read_record, write_record
from paintproc.strokes.values import load_strokes, strokes_to_bytes
from paintproc.version import __version__

FORMAT = "paintproc-dataset-1"
INDEX, SUMMARY, STROKES = "metadata.jsonl", "dataset.json", "strokes.safetensors"
INPUTS, FAILURES = "inputs.jsonl", "failures.jsonl"
SPLITS = ("train", "validation")
OURS = re.compile(
    r"(dataset\.json|(inputs|failures|shards)\.jsonl|parts(/[0-9]{5}-of-[0-9]{5}\.jsonl)?"
    r"|(train|validation)(-[0-9]{5}\.tar|/metadata\.jsonl|(/[0-9a-f]{16}(/(?P<file>[^/]+))?)?))"
)
"""What lies in a dataset, by its path below it."""
FAILURE = ("input", "error", "exit_code")
"""What a line of failures.jsonl says."""
OUTCOMES = ("done", "skipped", "failed")
"""What may become of an input."""
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
    file system refuses. `begin_dataset` removes what dead processes left.
    """
    name, source = sequence.info["id"], sequence.info["input"]["sha256"]
    item = dataset / split_of(source) / name
    if read_record(item) is not None:
        return item
    comment = f"paintproc {__version__}; {sequence.info.get('provenance', '')}"
    try:
        with whole_folder(item, tidy=False) as scratch:
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


def judge_dataset(folder: Path, facts: Mapping[str, Any]) -> Literal["absent", "begun", "finished"]:
    """How far a dataset folder of these facts has come.

    OutputError where the folder holds other things, or a dataset of other facts: the first difference is named.
    """
    with plain_errors(folder):
        # looked at in this order: whoever begins the same dataset just now writes the summary first
        used = folder.exists() and (not folder.is_dir() or any(not _unfinished(path) for path in folder.iterdir()))
        if not (folder / SUMMARY).exists():
            if used:
                raise OutputError(f"{folder} exists already and is no dataset folder.", "Choose another --output.")
            return "absent"
    try:
        summary = _read_begun(folder)
    except InputError as error:
        raise OutputError(error.message, "Choose another --output.") from error
    for key, found, wanted in differences(summary, _begun(facts)):
        raise OutputError(
            f"{folder} holds another dataset: its {key} is {found!r}, not {wanted!r}.",
            "Choose another --output, or pass --overwrite.",
        )
    return "finished" if "counts" in summary else "begun"


def begin_dataset(folder: Path, facts: Mapping[str, Any]) -> None:
    """Say on disk what a dataset folder is to hold, before it holds anything; what dead processes left is removed.

    OutputError as for `judge_dataset`.
    """
    with plain_errors(folder):
        for part in (folder, *(folder / split for split in SPLITS)):
            remove_dead_scratch(part)
    if judge_dataset(folder, facts) == "absent":
        try:
            _write(folder / SUMMARY, _json(_begun(facts)), replace=False)
        except OutputError:
            # another process may have been faster: its words are judged like an older run's
            if judge_dataset(folder, facts) == "absent":
                raise


def refuse_foreign(folder: Path) -> None:
    """OutputError for an existing path that holds anything but a dataset of ours, in a folder or in shards."""
    with plain_errors(folder):
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return
        try:
            _read_begun(folder)
        except InputError:
            raise OutputError(f"{folder} is no dataset; it is never overwritten.", "Choose another --output.") from None
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            place = OURS.fullmatch(name)
            ours = place is not None and not path.is_symlink()
            if place and place["file"]:
                record = read_record(path.parent)
                ours = ours and record is not None and place["file"] in {RECORD, *record["files"]}
            if not ours and not _unfinished(path):
                raise OutputError(f"{folder} holds {name}, which is not ours.", "Move it, or choose another --output.")


def finish_dataset(folder: Path, counts: Mapping[str, int], inputs: Sequence[Mapping[str, Any]] = ()) -> None:
    """Write the index of each split, the lists of inputs and failures, and last the counts.

    Everything but `counts` and `inputs` comes from the records of the items. Whoever ends last does it;
    the same items give the same bytes. InputError where the dataset was not begun.
    """
    summary = _read_begun(folder)
    sizes = {}
    for split in SPLITS:
        with plain_errors(folder / split):
            # of workers that died on the way
            remove_dead_scratch(folder / split)
        lines = [json.dumps(_line(item, record), ensure_ascii=False) for item, record in _items(folder / split)]
        sizes[split] = len(lines)
        if lines or (folder / split).is_dir():
            _write(folder / split / INDEX, "".join(f"{line}\n" for line in lines))
    failures = [{key: line[key] for key in FAILURE} for line in inputs if line["outcome"] == "failed"]
    for name, listed in ((INPUTS, inputs), (FAILURES, failures)):
        if listed:
            _write(folder / name, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in listed))
        else:
            with plain_errors(folder / name):
                (folder / name).unlink(missing_ok=True)
    _write(folder / SUMMARY, _json(summary | {"counts": dict(counts), "splits": sizes}))


class Dataset:
    """The sequences of one split, by place; reads what it is asked for, when it is asked.

    InputError where `folder` is no finished dataset folder.
    """

    def __init__(self, folder: str | Path, split: str = "train") -> None:
        self.folder = Path(folder) / split
        self.summary = read_summary(Path(folder))
        try:
            self.index: list[dict[str, Any]] = [json.loads(line) for line in read_lines(self.folder / INDEX)]
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
    summary = _read_begun(folder)
    if "counts" not in summary or "splits" not in summary:
        raise InputError(f"{folder} is a dataset that was begun and is not finished.", "Run its command again.")
    return summary


def read_inputs(folder: Path) -> list[dict[str, Any]]:
    """What became of each input, in their order; empty where nobody wrote it. InputError where it is damaged."""
    try:
        if not (folder / INPUTS).exists():
            return []
        return [json.loads(line) for line in read_lines(folder / INPUTS)]
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / INPUTS} cannot be read: {error}.") from error


def read_lines(path: Path) -> list[str]:
    """The lines of a file that ends each with a line feed and nothing else."""
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def _read_begun(folder: Path) -> dict[str, Any]:
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        if summary["format"] != FORMAT:
            raise ValueError(f"its format is {summary['format']!r}")
        return summary
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder} is no dataset folder: {error}.") from error


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


def verify_dataset(folder: Path, progress: Callable[[float], None] = lambda done: None) -> list[str]:
    """Read every byte of a dataset folder; what is wrong, a sentence each, nothing where all is well.

    InputError where it is no finished dataset folder.
    """
    summary, problems = read_summary(folder), []
    total, seen = max(1, sum(summary["splits"].values())), 0
    for split in SPLITS:
        lines = []
        for item, record in _items(folder / split):
            seen += 1
            progress(min(1.0, seen / total))
            lines.append(json.dumps(_line(item, record), ensure_ascii=False))
            problems += _wrong_in(item, record)
            if split_of(record["input"]["sha256"]) != split:
                problems.append(f"{split}/{item.name} belongs to another split.")
        index = folder / split / INDEX
        if (read_lines(index) if index.is_file() else []) != lines:
            problems.append(f"{split}/{INDEX} does not list the sequences that are there.")
        if summary["splits"].get(split) != len(lines):
            problems.append(f"{SUMMARY} counts {summary['splits'].get(split)} in {split}, and there are {len(lines)}.")
        for path in sorted((folder / split).iterdir()) if (folder / split).is_dir() else []:
            if path.name != INDEX and (not path.is_dir() or read_record(path) is None):
                problems.append(f"{split}/{path.name} is no sequence.")
    return problems + wrong_counts(folder, summary)


def wrong_counts(folder: Path, summary: Mapping[str, Any]) -> list[str]:
    """Where the list of inputs and the summary of a dataset do not agree, a sentence each."""
    inputs, counts, problems = read_inputs(folder), summary["counts"], []
    for outcome in OUTCOMES if inputs else ():
        listed = sum(line.get("outcome") == outcome for line in inputs)
        if counts.get(outcome) != listed:
            problems.append(f"{SUMMARY} counts {counts.get(outcome)} inputs {outcome}, {INPUTS} lists {listed}.")
    if "inputs" in counts and counts["inputs"] != sum(counts.get(outcome, 0) for outcome in OUTCOMES):
        problems.append(f"the counts in {SUMMARY} do not add up: {counts}.")
    if "sequences" in counts and counts["sequences"] != sum(summary["splits"].values()):
        problems.append(f"{SUMMARY} counts {counts['sequences']} sequences, its splits {summary['splits']}.")
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


def _begun(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {"format": FORMAT, "tool": "paintproc", "version": __version__, **facts}


def _unfinished(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(ENDING)


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _write(path: Path, text: str, replace: bool = True) -> None:
    """Write a file unless it is there with these very bytes."""
    with plain_errors(path):
        if path.is_file() and path.read_bytes() == text.encode():
            return
    with whole_file(path, replace=replace) as scratch:
        scratch.write_text(text, encoding="utf-8")
