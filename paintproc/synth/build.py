"""Builds a dataset from many pictures. A run that was stopped goes on where it was.

Worker processes paint (`jobs/`); each sequence appears whole. With shards, a process that has finished its part of
the inputs writes a file about them into `parts/`. The process that finds all inputs done, skipped or failed writes the
lists, the index and the counts.
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
from dataclasses import dataclass, field, replace
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
    inspect_dataset,
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
from paintproc.jobs import Engine, run_jobs
from paintproc.scene.networks import SceneNetworks
from paintproc.sequence import RECORD
from paintproc.shards import SHARD_SIZE, SHARDS, missing_shard, pack_dataset
from paintproc.synth.estimate import check_space
from paintproc.synth.items import Task, line_about, paint_in_worker
from paintproc.synth.sequences import dataset_settings, needs_scene
from paintproc.synth.sources import Source, inputs_digest

PARTS = "parts"
ITEM_SECONDS = 900.0
"""Seconds for one input; after that its worker is killed."""
PATIENCE = 20
"""How often to look whether another process has finished, or removed, a folder; 0.1 s apart."""
LEAST_MEMORY = 3 << 30
"""Bytes of address space that every worker may use."""

Layout = Literal["folder", "shards"]


@dataclass(frozen=True)
class Build:
    """What to build, and how. Only `config`, `sources` and `networks` decide the bytes."""

    out: Path
    config: SynthConfig
    sources: Sequence[Source]
    networks: SceneNetworks = field(default_factory=SceneNetworks)
    layout: Layout = "folder"
    shard_size: int = SHARD_SIZE
    shard: tuple[int, int] = (0, 1)
    """Index and count (i, n): this process works on every n-th input, beginning with number i."""
    workers: int = 1
    """How many inputs are painted at once; 0 for as many as the cluster of `engine` has room for."""
    engine: Engine = field(default_factory=Engine)
    """What runs them; its `workers` do not count."""
    overwrite: bool = False
    time_limit: float | None = None
    """Seconds for the whole run. It stops when the longest input so far would no longer fit."""
    item_seconds: float = ITEM_SECONDS
    max_bad: int | None = None
    """The run stops when more inputs fail than this."""

    @functools.cached_property
    def folder(self) -> Path:
        """Where the dataset grows: in `out`; or beside it, if it will be packed or will replace another one."""
        if self.layout == "folder" and not self.overwrite:
            return self.out
        digest = hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()[:8]
        return resolved(self.out).with_name(f".{resolved(self.out).name}.{digest}.building")

    def abandoned(self) -> list[Path]:
        """Folders beside `out` with unfinished datasets of other settings."""
        target = resolved(self.out)
        beside = sorted(target.parent.glob(f".{glob.escape(target.name)}.*.building"))
        return [path for path in beside if path != self.folder]

    def own(self) -> range:
        """The numbers of this process's inputs."""
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
    """What a run did."""

    counts: dict[str, int] | None
    """The counts of the finished dataset; None if other shards have not finished."""
    worked_on: int
    """How many inputs were unfinished before."""
    sequences: int
    """How many sequences this run made."""
    failed: int
    """How many inputs of this process failed, now or before."""


def build_dataset(
    build: Build,
    *,
    progress: Callable[[float], None] = lambda done: None,
    check: Callable[[], None] = lambda: None,
    complain: Callable[[str], None] = lambda text: None,
) -> Report:
    """Build a dataset, or go on with one that was begun.

    `progress` is called with the part of the work done, `complain` with a sentence for each failure and each abandoned
    folder. `check` is called often and may raise to stop. OutputError if the output cannot be written or holds
    something else, PartialError after more than `max_bad` failures, Interrupted at the time limit.
    """
    if build.overwrite:
        refuse_foreign(build.out)
    else:
        packed = _packed_counts(build)
        if packed is not None:
            _remove_building(build)
            return Report(packed, 0, 0, packed.get("failed", 0))
        if build.layout == "shards" and inspect_dataset(build.out, build.facts) != "absent":
            raise OutputError(f"{build.out} is a dataset folder.", "Choose --layout folder, or another --output.")
    if build.folder != build.out:
        tidy_beside(build.out)
        for path in build.abandoned():
            complain(f"{path} holds an unfinished dataset of other settings; remove it if nobody goes on with it.")
    begin_dataset(build.folder, build.facts)
    try:
        lines = _known(build.folder)
        todo = [place for place in build.own() if _is_unfinished(build.folder, lines.get(place))]
        made = 0
        if todo:
            check_space(build, todo)
            painted, made = _paint_all(build, todo, progress, check, complain)
            lines |= painted
        own = {place: lines[place] for place in build.own()}
        check()
        counts = _finish(build, own)
        if counts is None and build.layout == "shards":
            # another process may have packed the same dataset meanwhile; then this folder is not needed
            counts = _packed_counts(build)
            if counts is not None:
                _remove_building(build)
    except (InputError, OutputError):
        # another process may have finished the same dataset meanwhile, and removed the folder in which it grew
        finished = None if build.folder == build.out else _wait_for_counts(build)
        if finished is None:
            raise
        _remove_building(build)
        return Report(finished, 0, 0, finished.get("failed", 0))
    return Report(counts, len(todo), made, sum(line["outcome"] == "failed" for line in own.values()))


def _packed_counts(build: Build) -> dict[str, int] | None:
    """The counts of the output, if it is finished and in shards. OutputError if a shard is missing."""
    if inspect_dataset(build.out, build.facts) != "finished" or not (build.out / SHARDS).exists():
        return None
    missing = missing_shard(build.out)
    if missing is not None:
        raise OutputError(f"{build.out / missing} is missing, or cut off.", "Pass --overwrite to build it again.")
    return read_summary(build.out)["counts"]


def _wait_for_counts(build: Build) -> dict[str, int] | None:
    """The counts of the output, if another process has finished it or does so within two seconds."""
    for _ in range(PATIENCE):
        with contextlib.suppress(PaintprocError):
            if inspect_dataset(build.out, build.facts) == "finished":
                return read_summary(build.out)["counts"]
        time.sleep(0.1)
    return None


def _remove_building(build: Build) -> None:
    """Remove the folder in which a finished dataset grew, unless it holds files that are not ours."""
    for _ in range(PATIENCE):
        if build.folder == build.out or not build.folder.is_dir():
            return
        # another process may be removing the same folder
        with contextlib.suppress(OSError):
            if find_foreign(build.folder) is not None:
                return
            shutil.rmtree(build.folder, ignore_errors=True)


def _check_finished(folder: Path, build: Build) -> None:
    """Check that a folder, renamed so that only this process uses it, is the finished dataset; remove unfinished work.

    OutputError if it is not finished: another process has taken the finished one, and a third has begun it anew.
    """
    finished = inspect_dataset(folder, build.facts) == "finished" and (folder / INPUTS).exists()
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
    """Paint the inputs in `todo`. Returns the line about each, by its number, and how many sequences were made."""
    begun = time.monotonic()
    longest = 0.0

    def check_time() -> None:
        check()
        if build.time_limit is not None and time.monotonic() - begun + longest > build.time_limit:
            raise Interrupted("The time limit is reached; what was finished is kept. Run the same command again.")

    tasks = [Task(place, build.sources[place], build.config, build.networks, build.folder) for place in todo]
    memory = (
        None
        if build.networks.names
        else max(LEAST_MEMORY, build.engine.memory or 0, _memory() // (build.workers or 99))
    )
    jobs = run_jobs(
        tasks,
        paint_in_worker,
        replace(build.engine, workers=min(build.workers, len(todo))),
        time_limit=build.item_seconds,
        memory=memory,
        check=check_time,
    )
    lines: dict[int, dict[str, Any]] = {}
    bad = made = 0
    with contextlib.closing(jobs):
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
    """Write that this process's part is done. If all parts are, finish the dataset and return its counts."""
    if build.shard[1] > 1:
        _write_part(build, own)
    lines = _known(build.folder) | dict(own)
    # drop entries whose files are gone; their own shard makes them again
    lines = {
        place: line
        for place, line in lines.items()
        if place in own or line["outcome"] != "done" or not _is_unfinished(build.folder, line)
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
            # another process may have packed it at the same time
            if build.overwrite or _packed_counts(build) is None:
                raise
        _remove_building(build)
    elif guard is not None:
        guard()
        move_folder(build.folder, build.out, lambda folder: _check_finished(folder, build))
    return counts


def _write_part(build: Build, own: Mapping[int, dict[str, Any]]) -> None:
    """Write the lines about this process's inputs into `parts/`."""
    index, count = build.shard
    text = "".join(json.dumps({"place": place} | own[place], ensure_ascii=False) + "\n" for place in sorted(own))
    for last in (False, True):
        try:
            with whole_file(build.folder / PARTS / f"{index:05d}-of-{count:05d}.jsonl", replace=True) as scratch:
                scratch.write_text(text, encoding="utf-8", newline="\n")
            return
        except OutputError:
            # the process that finishes the dataset removes the folder, perhaps just now
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
    """The lines about inputs, by number: from the finished dataset, and from the parts of shards that have ended."""
    lines = dict(enumerate(read_inputs(folder)))
    parts = folder / PARTS
    try:
        for part in sorted(parts.glob("*.jsonl")):
            for line in map(parse_input, read_lines(part)):
                place = int(line.pop("place"))
                if lines.get(place, {}).get("outcome") != "done":
                    lines[place] = line
    except FileNotFoundError:
        # another process has finished the dataset meanwhile, and removed the parts
        return _known(folder)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise OutputError(f"{parts} is damaged: {error}.", "Remove it, and run the command again.") from error
    return lines


def _is_unfinished(folder: Path, line: Mapping[str, Any] | None) -> bool:
    """True if this input is unprocessed, incomplete, or failed for a reason worth retrying: not for its own fault."""
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
