"""Reads every byte of a dataset, in a folder or in shards, and says what is wrong with it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from paintproc.building import FAILURES
from paintproc.dataset.folder import OUTCOMES, failures_among, is_packed, read_inputs, read_lines, read_summary
from paintproc.dataset.items import whole_item
from paintproc.dataset.layout import INDEX, INPUTS, KEPT, PICTURES, SCENES, SPLITS, SUMMARY, ItemLayout
from paintproc.dataset.shards import read_shard, read_shards
from paintproc.errors import InputError
from paintproc.files import file_digest
from paintproc.sequence import RECORD, read_record


def verify_dataset(folder: Path, progress: Callable[[float], None] = lambda done: None) -> list[str]:
    """Read every byte of a dataset, in a folder or in shards. Returns a sentence for each thing that is wrong.

    InputError if it is no finished dataset.
    """
    return _verify_shards(folder, progress) if is_packed(folder) else _verify_folder(folder, progress)


def _verify_folder(folder: Path, progress: Callable[[float], None]) -> list[str]:
    summary = read_summary(folder)
    links = [path for split in SPLITS for path in (folder / split, *((folder / split).glob("*"))) if path.is_symlink()]
    problems = [f"{path.relative_to(folder)} is a link." for path in links]
    found: dict[str, set[str]] = {}
    total = max(1, sum(summary["splits"].values()))
    for split in SPLITS:
        lines: list[str] = []
        names = found[split] = set()
        kept = set[str]()
        for path in sorted((folder / split).iterdir()) if (folder / split).is_dir() else []:
            if path.name in (INDEX, PICTURES, SCENES):
                continue
            problems += wrong_in(path)
            layout = whole_item(path)
            if layout is not None:
                lines.append(json.dumps(layout.line(), ensure_ascii=False))
                names.add(path.name)
                kept.update(layout.kept)
            progress(min(1.0, sum(len(names) for names in found.values()) / total))
        problems += _wrong_kept(folder / split, kept)
        index = folder / split / INDEX
        try:
            listed = read_lines(index) if index.is_file() else []
        except (OSError, ValueError) as error:
            problems.append(f"{split}/{INDEX} cannot be read: {error}.")
        else:
            problems += [f"{split}/{INDEX} does not list the sequences that are there."] * (listed != lines)
    return problems + _wrong_counts(folder, summary, found)


def _wrong_kept(split: Path, kept: set[str]) -> list[str]:
    """A sentence for each thing that is wrong with the pictures and scenes of a split; items need those in `kept`."""
    problems = []
    for path in (path for part in (PICTURES, SCENES) for path in sorted((split / part).glob("*"))):
        name = path.relative_to(split).as_posix()
        found = KEPT.fullmatch(name)
        where = f"{split.name}/{name}"
        if found is None or path.is_symlink() or not path.is_file():
            problems.append(f"{where} is no picture and no scene.")
        elif file_digest(path) != found[2]:
            problems.append(f"{where} was changed since it was made.")
        elif name not in kept:
            problems.append(f"{where} belongs to no sequence.")
    return problems


def _wrong_counts(folder: Path, summary: Mapping[str, Any], found: Mapping[str, set[str]]) -> list[str]:
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
    except (InputError, OSError, ValueError, RecursionError) as error:
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


def _verify_shards(packed: Path, progress: Callable[[float], None]) -> list[str]:
    summary, listed = read_summary(packed), read_shards(packed)
    problems: list[str] = []
    found: dict[str, set[str]] = {split: set() for split in SPLITS}
    for place, line in enumerate(listed):
        path = packed / line["name"]
        names = found[line["name"].rpartition("-")[0]]
        if not path.is_file() or file_digest(path) != line["sha256"]:
            problems.append(f"{line['name']} is missing, or was changed since it was packed.")
            continue
        try:
            for part in read_shard(path):
                if part.id and part.name.endswith(f"/{RECORD}"):
                    problems += [f"{line['name']} holds {part.id} a second time."] * (part.id in names)
                    names.add(part.id)
        except InputError as error:
            problems.append(error.message)
        progress((place + 1) / len(listed))
    # a missing shard makes the counts wrong, too: that needs no sentence of its own
    return problems or _wrong_counts(packed, summary, found)


def wrong_in(item: Path) -> list[str]:
    """A sentence for each thing that is wrong with an item's folder."""
    where = f"{item.parent.name}/{item.name}"
    if item.is_symlink() or (item / RECORD).is_symlink():
        return [f"{where} is a link, or its record is."]
    record = read_record(item) if item.is_dir() else None
    if record is None:
        return [f"{where} is no sequence."]
    try:
        layout = ItemLayout.of(record)
    except ValueError as error:
        return [f"{where}: {error}."]
    there = {path.relative_to(item).as_posix() for path in item.rglob("*")} - {RECORD}
    problems = [f"{where}/{name} is missing." for name in sorted(set(layout.files) - there)]
    problems += [f"{where}/{name} is not in the record." for name in sorted(there - set(layout.files))]
    for name in sorted(there & set(layout.files)):
        try:
            if (item / name).is_symlink() or not (item / name).is_file():
                problems.append(f"{where}/{name} is a link, or no file.")
            elif file_digest(item / name) != layout.files[name]:
                problems.append(f"{where}/{name} was changed since it was made.")
        except OSError as error:
            problems.append(f"{where}/{name} cannot be read: {(error.strerror or str(error)).lower()}.")
    problems += [f"{item.parent.name}/{name} is missing." for name in layout.kept if not (item.parent / name).is_file()]
    if layout.provenance.id != item.name:
        problems.append(f"{where} says that its id is {layout.provenance.id!r}.")
    if layout.split != item.parent.name:
        problems.append(f"{where} belongs to another split.")
    return problems
