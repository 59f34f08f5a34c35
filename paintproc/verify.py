"""Reads every byte of a dataset, in a folder or in shards, and says what is wrong with it."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from paintproc.dataset import (
    FAILURES,
    INDEX,
    INPUTS,
    OUTCOMES,
    SPLITS,
    SUMMARY,
    failures_among,
    index_line,
    read_inputs,
    read_lines,
    read_summary,
    split_of,
    whole_item,
)
from paintproc.errors import InputError
from paintproc.files import file_digest
from paintproc.sequence import RECORD, read_record
from paintproc.shards import read_shards, shard_members


def verify_dataset(folder: Path, progress: Callable[[float], None] = lambda done: None) -> list[str]:
    """Read every byte of a dataset folder. Returns a sentence for each thing that is wrong.

    InputError if it is no finished dataset folder.
    """
    summary = read_summary(folder)
    problems: list[str] = []
    found: dict[str, set[str]] = {}
    total = max(1, sum(summary["splits"].values()))
    for split in SPLITS:
        lines: list[str] = []
        names = found[split] = set()
        for path in sorted((folder / split).iterdir()) if (folder / split).is_dir() else []:
            if path.name == INDEX:
                continue
            problems += wrong_in(path)
            record = whole_item(path)
            if record is not None:
                lines.append(json.dumps(index_line(path, record), ensure_ascii=False))
                names.add(path.name)
            progress(min(1.0, (sum(len(names) for names in found.values())) / total))
        index = folder / split / INDEX
        try:
            listed = read_lines(index) if index.is_file() else []
        except (OSError, ValueError) as error:
            problems.append(f"{split}/{INDEX} cannot be read: {error}.")
        else:
            problems += [f"{split}/{INDEX} does not list the sequences that are there."] * (listed != lines)
    return problems + wrong_counts(folder, summary, found)


def wrong_counts(folder: Path, summary: Mapping[str, Any], found: Mapping[str, set[str]]) -> list[str]:
    """A sentence for each disagreement between the summary, the lists, and the ids `found` in each split."""
    counts, splits, problems = summary["counts"], summary["splits"], []
    sizes = {split: len(names) for split, names in found.items()}
    if splits != sizes:
        problems.append(f"{SUMMARY} counts {splits}, and there are {sizes}.")
    if counts.get("inputs", 0) != sum(counts.get(outcome, 0) for outcome in OUTCOMES):
        problems.append(f"the counts in {SUMMARY} do not add up: {counts}.")
    if "sequences" in counts and counts["sequences"] != sum(splits.values()):
        problems.append(f"{SUMMARY} counts {counts['sequences']} sequences, its splits {splits}.")
    try:
        inputs = read_inputs(folder)
        failed = [json.loads(line) for line in read_lines(folder / FAILURES)] if (folder / FAILURES).exists() else []
    except (InputError, OSError, ValueError) as error:
        return [*problems, f"The lists cannot be read: {error}"]
    named = {name for line in inputs for name in line.get("sequences", ())}
    if named and named != set().union(*found.values()):
        problems.append(f"{INPUTS} does not name the sequences that are there.")
    for outcome in OUTCOMES if inputs else ():
        listed = sum(line["outcome"] == outcome for line in inputs)
        if counts.get(outcome) != listed:
            problems.append(f"{SUMMARY} counts {counts.get(outcome)} inputs {outcome}, {INPUTS} lists {listed}.")
    if inputs and failed != failures_among(inputs):
        problems.append(f"{FAILURES} does not list the inputs that failed.")
    return problems


def verify_shards(packed: Path, progress: Callable[[float], None] = lambda done: None) -> list[str]:
    """Read every byte of packed sequences. Returns a sentence for each thing that is wrong.

    InputError if it is no packed dataset.
    """
    summary, listed = read_summary(packed), read_shards(packed)
    problems: list[str] = []
    found: dict[str, set[str]] = {split: set() for split in SPLITS}
    for place, line in enumerate(listed):
        path = packed / line["name"]
        if not path.is_file() or file_digest(path) != line["sha256"]:
            problems.append(f"{line['name']} is missing, or was changed since it was packed.")
            continue
        digests: dict[str, dict[str, str]] = {}
        for name, data in shard_members(path):
            key, kind = name.split(".", 1)
            digests.setdefault(key, {})[kind] = hashlib.sha256(data).hexdigest()
            if kind == RECORD:
                digests[key].pop(kind)
                problems += [f"{line['name']}: {key} does not fit its record."] * (digests[key] != _files_in(data))
        found[line["name"].rpartition("-")[0]] |= digests.keys()
        progress((place + 1) / len(listed))
    # a missing shard makes the counts wrong, too: that needs no sentence of its own
    return problems or wrong_counts(packed, summary, found)


def wrong_in(item: Path) -> list[str]:
    """A sentence for each thing that is wrong with an item's folder."""
    where = f"{item.parent.name}/{item.name}"
    record = read_record(item) if item.is_dir() else None
    if record is None:
        return [f"{where} is no sequence."]
    there = {path.relative_to(item).as_posix() for path in item.rglob("*") if path.is_file()} - {RECORD}
    problems = [f"{where}/{name} is missing." for name in sorted(set(record["files"]) - there)]
    problems += [f"{where}/{name} is not in the record." for name in sorted(there - set(record["files"]))]
    for name in sorted(there & set(record["files"])):
        if file_digest(item / name) != record["files"][name]:
            problems.append(f"{where}/{name} was changed since it was made.")
    try:
        index_line(item, record)
        if record["id"] != item.name:
            problems.append(f"{where} says that its id is {record['id']!r}.")
        if split_of(record["input"]["sha256"]) != item.parent.name:
            problems.append(f"{where} belongs to another split.")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problems.append(f"{where}/{RECORD} is damaged: {type(error).__name__} {error}.")
    return problems


def _files_in(record: bytes) -> object:
    try:
        return json.loads(record)["files"]
    except (ValueError, KeyError, TypeError):
        return None
