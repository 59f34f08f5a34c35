"""Datasets made from datasets: merged, split, and written anew in the current format."""

import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from paintproc.dataset.folder import OUTCOMES, begin_dataset, finish_dataset, read_inputs, read_summary
from paintproc.dataset.items import StoredItem, write_item
from paintproc.dataset.layout import FORMATS, SPLITS
from paintproc.dataset.read import Dataset
from paintproc.errors import InputError, UsageError
from paintproc.files import whole_folder
from paintproc.sequence import RECORD

By = Literal["method", "license", "origin"]
Progress = Callable[[float], None]
Line = dict[str, Any]


def stored_items(dataset: Path, progress: Progress = lambda done: None) -> Iterator[StoredItem]:
    """All sequences of a finished dataset, in a folder or in shards, with only their records read."""
    splits = [Dataset(dataset, split) for split in SPLITS if split in read_summary(dataset)["splits"]]
    total, done = sum(map(len, splits)), 0
    for split in splits:
        for number in range(len(split)):
            yield split.item(number)
            done += 1
            progress(done / total)


def merge_datasets(
    datasets: Sequence[Path],
    out: Path,
    progress: Progress = lambda done: None,
    *,
    replace: Callable[[], None] | None = None,
) -> dict[str, int]:
    """Write the sequences of several datasets as the new dataset folder `out`. Returns its counts.

    A sequence that several hold is there once. Datasets of the same settings give one that can be extended. InputError
    where one is not finished, of an older format, or where two hold different sequences of the same id.
    """
    if len(datasets) < 2:
        raise UsageError("One dataset alone is named.", "Name at least two to merge.")
    summaries = [_current(dataset) for dataset in datasets]
    facts = [_facts(summary) for summary in summaries]
    inputs = [batch for summary in summaries for batch in summary["inputs"]]
    same = all(own == facts[0] for own in facts)
    lines = [line for dataset in datasets for line in read_inputs(dataset)]
    copied = set[str]()
    with whole_folder(out, replace=replace) as scratch:
        begin_dataset(scratch, (facts[0] if same else {"kind": "merged", "merged": facts}) | {"inputs": inputs})
        for number, dataset in enumerate(datasets):
            for item in stored_items(dataset, _scaled(progress, number, len(datasets))):
                _copy(item, scratch, str(dataset))
                copied.add(item.layout.provenance.id)
        counts = _counts(lines) | {"sequences": len(copied)}
        _finish(scratch, counts, lines)
    return counts


def _scaled(progress: Progress, number: int, count: int) -> Progress:
    """The progress of number `number` of `count` pieces of work, as a part of all of it."""
    return lambda done: progress((number + done) / count)


def split_dataset(
    dataset: Path,
    out: Path,
    by: By | int,
    progress: Progress = lambda done: None,
    *,
    replace: Callable[[], None] | None = None,
) -> dict[str, dict[str, int]]:
    """Write a dataset as several in the new folder `out`: one for each method, license or origin, or so many parts.

    All sequences of a painting are in the same part. Inputs that gave no sequence are in none. Returns the counts of
    each dataset, by the name of its folder. InputError where the dataset is not finished, or of an older format.
    """
    summary = _current(dataset)
    lines = read_inputs(dataset)
    made: dict[str, set[str]] = {}
    counts = {}
    with whole_folder(out, replace=replace) as scratch:
        for item in stored_items(dataset, progress):
            name = _part(item, by)
            if name not in made:
                begin_dataset(scratch / name, _facts(summary) | {"inputs": [], "part": name})
            _copy(item, scratch / name, str(dataset))
            made.setdefault(name, set()).add(item.layout.provenance.id)
        for name, ids in sorted(made.items()):
            own = [
                line | {"sequences": [key for key in line["sequences"] if key in ids]}
                for line in lines
                if ids.intersection(line.get("sequences", ()))
            ]
            counts[name] = _counts(own) | {"sequences": len(ids)}
            _finish(scratch / name, counts[name], own)
    return counts


def upgrade_dataset(
    dataset: Path,
    out: Path,
    picture_of: Callable[[Mapping[str, Any]], np.ndarray | None],
    progress: Progress = lambda done: None,
    *,
    replace: Callable[[], None] | None = None,
) -> int:
    """Write a dataset of an older format as the new dataset folder `out`. Returns how many pictures were found.

    `picture_of` gives the picture, uint8 [H, W, 3], from which the sequence of a record was made, or None where it is
    not known: an older dataset does not hold it. InputError where the dataset is of the current format.
    """
    summary = read_summary(dataset)
    if summary["format"] == FORMATS[0]:
        raise InputError(f"{dataset} is of the current format, {FORMATS[0]}.", "It needs no upgrade.")
    inputs = summary["inputs"] if isinstance(summary.get("inputs"), list) else [summary.get("inputs", {})]
    found = 0
    with whole_folder(out, replace=replace) as scratch:
        begin_dataset(scratch, _facts(summary) | {"inputs": inputs})
        for item in stored_items(dataset, progress):
            sequence = item.sequence()
            picture = picture_of(item.record)
            if picture is not None and picture.shape == sequence.shape:
                sequence = dataclasses.replace(sequence, target=picture)
                found += 1
            write_item(scratch, sequence)
        _finish(scratch, summary["counts"], read_inputs(dataset))
    return found


def _current(dataset: Path) -> dict[str, Any]:
    """The summary of a finished dataset. InputError if it is of an older format."""
    summary = read_summary(dataset)
    if summary["format"] != FORMATS[0]:
        raise InputError(
            f"{dataset} is of an older format, {summary['format']}.", "`paintproc dataset upgrade` writes it anew."
        )
    return summary


def _facts(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What a summary says beside the counts and inputs: kind, settings and the like."""
    own = ("format", "tool", "counts", "splits", "inputs")
    return {key: value for key, value in summary.items() if key not in own}


def _copy(item: StoredItem, out: Path, where: str) -> None:
    """Write an item's files, as they are, into a dataset folder that only this process uses.

    InputError where a file was changed since it was made, or the folder holds another item of this id.
    """
    split = out / item.layout.split
    name = item.layout.provenance.id
    files = {f"{name}/{file}": item.layout.files.get(file) for file in item.layout.members}
    files |= {kept: kept.rpartition("/")[2].removesuffix(".png") for kept in item.layout.kept}
    for file, digest in files.items():
        data = item.read(file.removeprefix(f"{name}/"))
        if digest not in (None, hashlib.sha256(data).hexdigest()):
            raise InputError(f"{where}: {file} was changed since it was made.")
        if not (split / file).exists():
            (split / file).parent.mkdir(parents=True, exist_ok=True)
            (split / file).write_bytes(data)
        elif file.endswith(f"/{RECORD}") and (split / file).read_bytes() != data:
            raise InputError(f"{where} holds another sequence {name} than a dataset before it.")


def _part(item: StoredItem, by: By | int) -> str:
    """The folder in which an item belongs."""
    if isinstance(by, int):
        return f"part-{int(item.layout.provenance.sha256[8:16], 16) % by}-of-{by}"
    value = getattr(item.layout.provenance, by)
    if value is None:
        return "unknown"
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", value).strip(".-")[:60]
    # values that would share a folder, or have none, are told apart by a digest
    return plain if plain and plain == value else f"{plain or by}-{hashlib.sha256(value.encode()).hexdigest()[:8]}"


def _counts(lines: Sequence[Line]) -> dict[str, int]:
    outcomes = Counter(line["outcome"] for line in lines)
    ids = {name for line in lines for name in line.get("sequences", ())}
    return {"inputs": len(lines), **{name: outcomes[name] for name in OUTCOMES}, "sequences": len(ids)}


def _finish(folder: Path, counts: Mapping[str, int], lines: Sequence[Line]) -> None:
    missing = finish_dataset(folder, counts, lines)
    if missing:
        raise InputError(
            f"The sequence {min(missing)} is named and is not there.", "`paintproc dataset verify` says more."
        )
