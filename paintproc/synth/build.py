"""Many pictures into one dataset: every input is accounted for, and a run that was stopped goes on where it was.

Workers paint (`jobs.py`); each sequence appears whole. When a process has done its part of the inputs it says
so in `parts/`; whoever finds that all inputs are accounted for writes the lists, the index and the counts.
"""

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from paintproc.config.synth import SynthConfig, SynthLayersConfig
from paintproc.dataset import (
    OUTCOMES,
    begin_dataset,
    finish_dataset,
    judge_dataset,
    read_inputs,
    read_lines,
    read_summary,
    refuse_foreign,
    split_of,
)
from paintproc.errors import InputError, Interrupted, OutputError, PaintprocError, PartialError
from paintproc.files import move_folder, plain_errors, remove_dead_scratch, whole_file
from paintproc.jobs import run_jobs
from paintproc.scene.networks import Choice
from paintproc.sequence import RECORD
from paintproc.shards import SHARD_SIZE, SHARDS, pack_dataset
from paintproc.strokes.rasterize import thread_count
from paintproc.synth.items import Task, line_about, paint_in_worker, paint_source
from paintproc.synth.sequences import dataset_settings, methods, needs_scene
from paintproc.synth.sources import Source, inputs_digest

PARTS = "parts"
BYTES_A_PIXEL = 1.2
"""What a pixel of a painted frame takes as PNG, rather more than less; with the rest of an item below."""
BYTES_AN_ITEM = 120_000
RESERVE = 1.1
"""Free space asked for, as a multiple of what is expected."""
ITEM_SECONDS = 900.0
"""After this time on one input its worker is taken to be stuck."""
LEAST_MEMORY = 3 << 30
"""Address space that a worker has at least."""

Layout = Literal["folder", "shards"]


@dataclass(frozen=True)
class Build:
    """What is to be built, and how; only `config`, `sources` and the networks decide the bytes."""

    out: Path
    config: SynthConfig
    sources: Sequence[Source]
    networks: Choice = field(default_factory=Choice)
    layout: Layout = "folder"
    shard_size: int = SHARD_SIZE
    shard: tuple[int, int] = (0, 1)
    """This process's part of the inputs: every n-th, from the index on."""
    workers: int = 1
    overwrite: bool = False
    time_limit: float | None = None
    """Seconds after which nothing new is begun."""
    item_seconds: float = ITEM_SECONDS
    max_bad: int | None = None
    """How many inputs may fail before everything stops."""

    @property
    def folder(self) -> Path:
        """Where the dataset grows: the output itself, or beside it, where it is to be packed or to replace another."""
        beside = self.layout == "shards" or self.overwrite
        return self.out.with_name(f".{self.out.name}.building") if beside else self.out

    def facts(self) -> dict[str, Any]:
        """What the dataset holds, for its summary."""
        return {
            "kind": "layers" if isinstance(self.config, SynthLayersConfig) else "strokes",
            "settings": dataset_settings(self.config),
            "scene": str(self.networks) if needs_scene(self.config) else None,
            "inputs": {"count": len(self.sources), "sha256": inputs_digest(self.sources)},
        }

    def bytes_expected(self, inputs: int) -> int:
        """What so many inputs will take on disk, rather more than less."""
        frames = self.config.num_frames * self.config.size**2 * BYTES_A_PIXEL
        total = inputs * len(methods(self.config)) * (frames + BYTES_AN_ITEM)
        return int(total * (2 if self.layout == "shards" else 1))


@dataclass(frozen=True)
class Report:
    """What a run did: the dataset's counts, None where other shards are still to do their part; and its own."""

    counts: dict[str, int] | None
    worked_on: int
    """Inputs that were not known before."""
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

    `progress` is told the part of the work done, `complain` what failed; `check` is called often and may raise to
    stop. OutputError where the output cannot be written or holds something else, PartialError after more than
    `max_bad` failures, Interrupted at the time limit.
    """
    facts = build.facts()
    if build.overwrite:
        refuse_foreign(build.out)
    else:
        found = judge_dataset(build.out, facts)
        if found == "finished" and (build.out / SHARDS).exists():
            if build.layout == "shards":
                shutil.rmtree(build.folder, ignore_errors=True)
            counts = read_summary(build.out)["counts"]
            return Report(counts, 0, counts["failed"])
        if found != "absent" and build.layout == "shards":
            raise OutputError(f"{build.out} is a dataset folder.", "Choose --layout folder, or another --output.")
    begin_dataset(build.folder, facts)
    lines = _known(build.folder)
    todo = [place for place in _own(build) if _open(build.folder, lines.get(place))]
    if todo:
        check_space(build, len(todo))
        lines |= _paint_all(build, todo, progress, check, complain)
    own = {place: lines[place] for place in _own(build)}
    check()
    counts = _finish(build, own, facts)
    return Report(counts, len(todo), sum(line["outcome"] == "failed" for line in own.values()))


def check_space(build: Build, inputs: int) -> None:
    """OutputError where the disk has not the room for so many more inputs."""
    free = _free(build)
    wanted = int(RESERVE * build.bytes_expected(inputs))
    if free < wanted:
        raise OutputError(
            f"{build.out} may need {wanted / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free.",
            "Free some space, or choose another --output.",
        )


def estimate(build: Build) -> dict[str, int | float]:
    """What a build comes to, by painting the first picture that can be read: pictures, sequences, bytes, seconds.

    InputError where none can be read.
    """
    own = [build.sources[place] for place in _own(build)]
    paintable = [source for source in own if not (source.skip or source.broken)]
    count = len(methods(build.config))
    with tempfile.TemporaryDirectory() as scratch:
        for source in paintable:
            with contextlib.suppress(PaintprocError):
                task = Task(0, source, build.config, build.networks, Path(scratch))
                # the first time loads the kernels
                paint_source(replace(task, config=replace(build.config, strokes=10)))
                shutil.rmtree(scratch)
                begun = time.monotonic()
                if paint_source(task)["outcome"] == "done":
                    break
        else:
            raise InputError("None of the inputs can be read.")
        seconds = time.monotonic() - begun
        size = sum(path.stat().st_size for path in Path(scratch).rglob("*") if path.is_file())
    return {
        "pictures": len(paintable),
        "sequences": len(paintable) * count,
        "skipped": sum(bool(source.skip) for source in own),
        "broken": sum(bool(source.broken) for source in own),
        "bytes": size * len(paintable),
        "seconds": round(seconds * len(paintable) / build.workers, 1),
        "free_bytes": _free(build),
    }


def _paint_all(
    build: Build,
    todo: list[int],
    progress: Callable[[float], None],
    check: Callable[[], None],
    complain: Callable[[str], None],
) -> dict[int, dict[str, Any]]:
    """What became of each input in `todo`, by its place."""
    # each worker draws on its part of the processors; the bytes do not depend on it
    os.environ.setdefault("PAINTPROC_THREADS", str(max(1, thread_count() // build.workers)))
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
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
    bad = 0
    try:
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
                lines[outcome.item.place], seconds = outcome.result
                longest = max(longest, seconds)
            progress(len(lines) / len(todo))
            if build.max_bad is not None and bad > build.max_bad:
                raise PartialError(f"More than {build.max_bad} inputs failed; what was finished is kept.")
    finally:
        jobs.close()
    return lines


def _finish(build: Build, own: Mapping[int, dict[str, Any]], facts: Mapping[str, Any]) -> dict[str, int] | None:
    """Say that this process's part is done; finish the dataset where it was the last. Its counts, if so."""
    if build.shard[1] > 1:
        _write_part(build, own)
    lines = _known(build.folder) | dict(own)
    if len(lines) < len(build.sources):
        return None
    inputs = [lines[place] for place in range(len(build.sources))]
    outcomes = Counter(line["outcome"] for line in inputs)
    ids = {name for line in inputs for name in line.get("sequences", ())}
    counts = {"inputs": len(inputs), **{name: outcomes[name] for name in OUTCOMES}, "sequences": len(ids)}
    finish_dataset(build.folder, counts, inputs)
    _remove_parts(build.folder)
    guard = (lambda: refuse_foreign(build.out)) if build.overwrite else None
    if build.layout == "shards":
        try:
            pack_dataset(build.folder, build.out, build.shard_size, replace=guard)
        except OutputError:
            # another process that ended at the same time may have been faster
            if build.overwrite or judge_dataset(build.out, facts) != "finished":
                raise
        shutil.rmtree(build.folder, ignore_errors=True)
    elif guard is not None:
        guard()
        move_folder(build.folder, build.out)
    return counts


def _write_part(build: Build, own: Mapping[int, dict[str, Any]]) -> None:
    index, count = build.shard
    text = "".join(json.dumps({"place": place} | own[place], ensure_ascii=False) + "\n" for place in sorted(own))
    for last in (False, True):
        try:
            with whole_file(build.folder / PARTS / f"{index:05d}-of-{count:05d}.jsonl", replace=True) as scratch:
                scratch.write_text(text, encoding="utf-8")
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


def _own(build: Build) -> range:
    """The places of this process's inputs."""
    return range(build.shard[0], len(build.sources), build.shard[1])


def _known(folder: Path) -> dict[int, dict[str, Any]]:
    """What is written of inputs: in the finished dataset, and in the parts of shards that have ended."""
    lines = dict(enumerate(read_inputs(folder)))
    parts = folder / PARTS
    try:
        for part in sorted(parts.glob("*.jsonl")):
            for line in map(json.loads, read_lines(part)):
                place = line.pop("place")
                if lines.get(place, {}).get("outcome") != "done":
                    lines[place] = line
    except FileNotFoundError:
        # whoever finished the dataset meanwhile has removed them
        return _known(folder)
    except (ValueError, KeyError, OSError) as error:
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
    return any(not (split / name / RECORD).is_file() for name in line["sequences"])


def _free(build: Build) -> int:
    """Bytes that are free where the dataset is to be."""
    base = next(path for path in (build.folder, *build.folder.absolute().parents) if path.exists())
    with plain_errors(build.out):
        return shutil.disk_usage(base).free


def _memory() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else LEAST_MEMORY
