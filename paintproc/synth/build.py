"""Many pictures into one dataset: every input is accounted for, and a run that was stopped goes on where it was.

Workers paint (`jobs.py`); each sequence appears whole. When a process has done its part of the inputs it says
so in `parts/`; whoever finds that all inputs are accounted for writes the lists, the index and the counts.
"""

import contextlib
import functools
import glob
import hashlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from paintproc.config.synth import SynthConfig, SynthLayersConfig
from paintproc.dataset import (
    INPUTS,
    OUTCOMES,
    begin_dataset,
    drop_unfinished,
    find_foreign,
    finish_dataset,
    judge_dataset,
    parse_input,
    read_inputs,
    read_lines,
    read_summary,
    refuse_foreign,
    split_of,
    whole_item,
)
from paintproc.errors import InputError, Interrupted, OutputError, PaintprocError, PartialError
from paintproc.files import move_folder, plain_errors, remove_dead_scratch, resolved, tidy_beside, whole_file
from paintproc.jobs import run_jobs
from paintproc.scene.networks import SceneNetworks
from paintproc.sequence import RECORD
from paintproc.shards import SHARD_SIZE, SHARDS, missing_shard, pack_dataset
from paintproc.strokes.rasterize import threads_of_workers
from paintproc.synth.estimate import check_space
from paintproc.synth.items import Task, line_about, paint_in_worker
from paintproc.synth.sequences import dataset_settings, needs_scene
from paintproc.synth.sources import Source, inputs_digest

PARTS = "parts"
ITEM_SECONDS = 900.0
"""After this time on one input its worker is taken to be stuck."""
PATIENCE = 20
"""Tenths of a second that another process has for giving a finished dataset its name."""
LEAST_MEMORY = 3 << 30
"""Address space that a worker has at least."""

Layout = Literal["folder", "shards"]


@dataclass(frozen=True)
class Build:
    """What is to be built, and how; only `config`, `sources` and the networks decide the bytes."""

    out: Path
    config: SynthConfig
    sources: Sequence[Source]
    networks: SceneNetworks = field(default_factory=SceneNetworks)
    layout: Layout = "folder"
    shard_size: int = SHARD_SIZE
    shard: tuple[int, int] = (0, 1)
    """This process's part of the inputs: every n-th, from the index on."""
    workers: int = 1
    overwrite: bool = False
    time_limit: float | None = None
    """Seconds after which to stop, less what the longest input took so far."""
    item_seconds: float = ITEM_SECONDS
    max_bad: int | None = None
    """How many inputs may fail before everything stops."""

    @functools.cached_property
    def folder(self) -> Path:
        """Where the dataset grows: the output itself, or beside it, where it is to be packed or to replace another."""
        if self.layout == "folder" and not self.overwrite:
            return self.out
        digest = hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()[:8]
        return resolved(self.out).with_name(f".{resolved(self.out).name}.{digest}.building")

    def abandoned(self) -> list[Path]:
        """Folders in which datasets of other settings grew beside the same output, and were not finished."""
        target = resolved(self.out)
        beside = sorted(target.parent.glob(f".{glob.escape(target.name)}.*.building"))
        return [path for path in beside if path != self.folder]

    def own(self) -> range:
        """The places of this process's inputs."""
        return range(self.shard[0], len(self.sources), self.shard[1])

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        """What the dataset holds, for its summary."""
        return {
            "kind": "layers" if isinstance(self.config, SynthLayersConfig) else "strokes",
            "settings": dataset_settings(self.config),
            "scene": str(self.networks) if needs_scene(self.config) else None,
            "inputs": {"count": len(self.sources), "sha256": inputs_digest(self.sources)},
        }


@dataclass(frozen=True)
class Report:
    """What a run did: the dataset's counts, None where other shards are still to do their part; and its own."""

    counts: dict[str, int] | None
    worked_on: int
    """Inputs that were not known before, or not whole."""
    sequences: int
    """Sequences that were made now."""
    failed: int
    """Inputs of this process that failed, now or before."""


def build_dataset(
    build: Build,
    *,
    progress: Callable[[float], None] = lambda done: None,
    check: Callable[[], None] = lambda: None,
    complain: Callable[[str], None] = lambda text: None,
) -> Report:
    """Build a dataset, or go on with it.

    `progress` is told the part of the work done, `complain` what failed or lies about; `check` is called often and may
    raise to stop. OutputError where the output cannot be written or holds something else, PartialError after more
    than `max_bad` failures, Interrupted at the time limit.
    """
    if build.overwrite:
        refuse_foreign(build.out)
    else:
        packed = _packed_counts(build)
        if packed is not None:
            _remove_building(build)
            return Report(packed, 0, 0, packed.get("failed", 0))
        if build.layout == "shards" and judge_dataset(build.out, build.facts) != "absent":
            raise OutputError(f"{build.out} is a dataset folder.", "Choose --layout folder, or another --output.")
    if build.folder != build.out:
        tidy_beside(build.out)
        for path in build.abandoned():
            complain(f"{path} holds an unfinished dataset of other settings; remove it if nobody goes on with it.")
    begin_dataset(build.folder, build.facts)
    try:
        lines = _known(build.folder)
        todo = [place for place in build.own() if _open(build.folder, lines.get(place))]
        made = 0
        if todo:
            check_space(build, todo)
            painted, made = _paint_all(build, todo, progress, check, complain)
            lines |= painted
        own = {place: lines[place] for place in build.own()}
        check()
        counts = _finish(build, own)
        if counts is None and build.layout == "shards":
            # another process may have finished meanwhile: then what was written here since is of no use
            counts = _packed_counts(build)
            if counts is not None:
                _remove_building(build)
    except (InputError, OutputError):
        # another process may have finished the same dataset meanwhile, and taken away the folder in which it grew
        finished = None if build.folder == build.out else _elsewhere(build)
        if finished is None:
            raise
        _remove_building(build)
        return Report(finished, 0, 0, finished.get("failed", 0))
    return Report(counts, len(todo), made, sum(line["outcome"] == "failed" for line in own.values()))


def _packed_counts(build: Build) -> dict[str, int] | None:
    """The counts of the output where that is finished and in shards; OutputError where one of them is missing."""
    if judge_dataset(build.out, build.facts) != "finished" or not (build.out / SHARDS).exists():
        return None
    missing = missing_shard(build.out)
    if missing is not None:
        raise OutputError(f"{build.out / missing} is missing, or cut off.", "Pass --overwrite to build it again.")
    return read_summary(build.out)["counts"]


def _elsewhere(build: Build) -> dict[str, int] | None:
    """The counts of the output where another process finished it, or is just about to."""
    for _ in range(PATIENCE):
        with contextlib.suppress(PaintprocError):
            if judge_dataset(build.out, build.facts) == "finished":
                return read_summary(build.out)["counts"]
        time.sleep(0.1)
    return None


def _remove_building(build: Build) -> None:
    """Remove the folder in which a finished dataset grew, if nothing else is in it."""
    for _ in range(PATIENCE):
        if build.folder == build.out or not build.folder.is_dir():
            return
        # another process may be removing it, too
        with contextlib.suppress(OSError):
            if find_foreign(build.folder) is not None:
                return
            shutil.rmtree(build.folder, ignore_errors=True)


def _take(folder: Path, build: Build) -> None:
    """Make sure that a folder which was finished, and is now this process's own, is just the dataset.

    OutputError where another process took that before, and this is one which was begun anew.
    """
    finished = judge_dataset(folder, build.facts) == "finished" and (folder / INPUTS).exists()
    splits = read_summary(folder)["splits"] if finished else {}
    if not finished or any(len(list(folder.glob(f"{split}/*/{RECORD}"))) != size for split, size in splits.items()):
        raise OutputError(f"{build.out} is being built by another process.", "Run the command again.")
    drop_unfinished(folder)


def _paint_all(
    build: Build,
    todo: list[int],
    progress: Callable[[float], None],
    check: Callable[[], None],
    complain: Callable[[str], None],
) -> tuple[dict[int, dict[str, Any]], int]:
    """What became of each input in `todo`, by its place, and how many sequences were made."""
    begun = time.monotonic()
    longest = 0.0

    def look_around() -> None:
        check()
        if build.time_limit is not None and time.monotonic() - begun + longest > build.time_limit:
            raise Interrupted("The time limit is reached; what was finished is kept. Run the same command again.")

    tasks = [Task(place, build.sources[place], build.config, build.networks, build.folder) for place in todo]
    memory = None if build.networks.names else max(LEAST_MEMORY, _memory() // build.workers)
    jobs = run_jobs(
        tasks,
        paint_in_worker,
        workers=min(build.workers, len(todo)),
        time_limit=build.item_seconds,
        memory=memory,
        check=look_around,
    )
    lines: dict[int, dict[str, Any]] = {}
    bad = made = 0
    with threads_of_workers(build.workers), contextlib.closing(jobs):
        for outcome in jobs:
            source = outcome.item.source
            if outcome.exit_code == OutputError.exit_code:
                raise OutputError(outcome.error)
            if outcome.exit_code:
                text = outcome.error if source.name in outcome.error else f"{source.name}: {outcome.error}."
                complain(text)
                lines[outcome.item.place] = line_about(source, "failed", error=text, exit_code=outcome.exit_code)
                bad += 1
            else:
                lines[outcome.item.place], count, seconds = outcome.result
                made, longest = made + count, max(longest, seconds)
            progress(len(lines) / len(todo))
            if build.max_bad is not None and bad > build.max_bad:
                raise PartialError(f"More than {build.max_bad} inputs failed; what was finished is kept.")
    return lines, made


def _finish(build: Build, own: Mapping[int, dict[str, Any]]) -> dict[str, int] | None:
    """Say that this process's part is done; finish the dataset where it was the last. Its counts, if so."""
    if build.shard[1] > 1:
        _write_part(build, own)
    lines = _known(build.folder) | dict(own)
    # what another shard made, and is no longer there, that shard must make again
    lines = {
        place: line
        for place, line in lines.items()
        if place in own or line["outcome"] != "done" or not _open(build.folder, line)
    }
    if len(lines) < len(build.sources):
        return None
    inputs = [lines[place] for place in range(len(build.sources))]
    outcomes = Counter(line["outcome"] for line in inputs)
    ids = {name for line in inputs for name in line.get("sequences", ())}
    counts = {"inputs": len(inputs), **{name: outcomes[name] for name in OUTCOMES}, "sequences": len(ids)}
    with plain_errors(build.out):
        finish_dataset(build.folder, counts, inputs)
    _remove_parts(build.folder)
    guard = (lambda: refuse_foreign(build.out)) if build.overwrite else None
    if build.layout == "shards":
        try:
            pack_dataset(build.folder, build.out, build.shard_size, replace=guard)
        except OutputError:
            # another process that ended at the same time may have been faster
            if build.overwrite or _packed_counts(build) is None:
                raise
        _remove_building(build)
    elif guard is not None:
        guard()
        move_folder(build.folder, build.out, lambda folder: _take(folder, build))
    return counts


def _write_part(build: Build, own: Mapping[int, dict[str, Any]]) -> None:
    index, count = build.shard
    text = "".join(json.dumps({"place": place} | own[place], ensure_ascii=False) + "\n" for place in sorted(own))
    for last in (False, True):
        try:
            with whole_file(build.folder / PARTS / f"{index:05d}-of-{count:05d}.jsonl", replace=True) as scratch:
                scratch.write_text(text, encoding="utf-8", newline="\n")
            return
        except OutputError:
            # whoever finishes the dataset removes the folder
            if last:
                raise


def _remove_parts(folder: Path) -> None:
    parts = folder / PARTS
    with contextlib.suppress(OSError):
        remove_dead_scratch(parts)
        for part in parts.glob("*.jsonl"):
            part.unlink(missing_ok=True)
        parts.rmdir()


def _known(folder: Path) -> dict[int, dict[str, Any]]:
    """What is written of inputs: in the finished dataset, and in the parts of shards that have ended."""
    lines = dict(enumerate(read_inputs(folder)))
    parts = folder / PARTS
    try:
        for part in sorted(parts.glob("*.jsonl")):
            for line in map(parse_input, read_lines(part)):
                place = int(line.pop("place"))
                if lines.get(place, {}).get("outcome") != "done":
                    lines[place] = line
    except FileNotFoundError:
        # whoever finished the dataset meanwhile has removed them
        return _known(folder)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise OutputError(f"{parts} is damaged: {error}.", "Remove it, and run the command again.") from error
    return lines


def _open(folder: Path, line: Mapping[str, Any] | None) -> bool:
    """Whether an input is to be worked on: nothing is known of it, its sequences are not all there, or it was not at
    fault when it failed.
    """
    if line is None:
        return True
    if line["outcome"] == "failed":
        return line["exit_code"] != InputError.exit_code
    if line["outcome"] == "skipped":
        return False
    split = folder / split_of(line["sha256"])
    return any(whole_item(split / name) is None for name in line["sequences"])


def _memory() -> int:
    """Bytes of this machine's memory; `LEAST_MEMORY` where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return LEAST_MEMORY
