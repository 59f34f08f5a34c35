"""Where a dataset grows and where it goes: the output, or a hidden folder beside it."""

import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from paintproc.dataset.folder import (
    begin_dataset,
    drop_unfinished,
    find_foreign,
    inspect_dataset,
    is_packed,
    read_begun,
    read_summary,
)
from paintproc.dataset.layout import INPUTS
from paintproc.dataset.shards import SHARD_SIZE, missing_shard
from paintproc.errors import OutputError, PaintprocError
from paintproc.files import plain_errors, resolved
from paintproc.jobs import Engine
from paintproc.sequence import RECORD

ITEM_SECONDS = 900.0
"""Seconds for one input; after that its worker is killed."""
PATIENCE = 20
"""How often to look whether another process has finished, or removed, a folder; 0.1 s apart."""
LEAST_MEMORY = 3 << 30
"""Bytes of address space that every worker may use."""
RESERVE = 1.1
"""Free space that must be there before the start, as a multiple of the expected size."""

Layout = Literal["folder", "shards"]


@dataclass(frozen=True)
class Build:
    """What to build, and how. Only `facts`, `names`, `task` and `work` decide the bytes."""

    out: Path
    facts: Mapping[str, Any]
    """What the dataset holds, for its summary: kind, settings and the like."""
    names: Sequence[str]
    """The name of each input."""
    digest: str
    """Of all that decides the inputs."""
    task: Callable[[int, Path], Any]
    """What `work` takes for an input, by its number; and the folder to which it adds sequences."""
    work: Callable[[Any], dict[str, Any]]
    """A function of a module. Returns the line about an input, and in it under `made` how many sequences it made."""
    bytes_needed: Callable[[Sequence[int]], float] = lambda todo: 0
    """Bytes that the sequences of these inputs will take."""
    layout: Layout = "folder"
    shard_size: int = SHARD_SIZE
    shard: tuple[int, int] = (0, 1)
    """Index and count (i, n): this process works on every n-th input, beginning with number i."""
    engine: Engine | None = field(default_factory=Engine)
    """What works on the inputs; None for this process itself."""
    overwrite: bool = False
    extend: bool = False
    """Whether inputs are added to a dataset of others with the same settings."""
    time_limit: float | None = None
    """Seconds for the whole run. It stops when the longest input so far would no longer fit."""
    item_seconds: float = ITEM_SECONDS
    max_bad: int | None = None
    """The run stops when more inputs fail than this."""
    bound_memory: bool = True
    """Whether a worker that takes too much memory is stopped."""

    @property
    def batch(self) -> dict[str, Any]:
        """These inputs, as the dataset's summary has them."""
        return {"count": len(self.names), "sha256": self.digest}

    @functools.cached_property
    def folder(self) -> Path:
        """Where the dataset grows: in `out`; or beside it, if it will be packed or will replace another one."""
        if self.layout == "folder" and not self.overwrite:
            return self.out
        text = json.dumps({**self.facts, "inputs": self.batch}, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return resolved(self.out).with_name(f".{resolved(self.out).name}.{digest}.building")

    def abandoned(self) -> list[Path]:
        """Folders beside `out` with unfinished datasets of other settings."""
        target = resolved(self.out)
        name = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{8}}\.building")
        beside = sorted(path for path in target.parent.glob(".*.building") if name.fullmatch(path.name))
        return [path for path in beside if path != self.folder]

    def memory(self) -> int | None:
        """Bytes of address space that every worker may use; None for all there are."""
        if not self.bound_memory or self.engine is None:
            return None
        return max(LEAST_MEMORY, memory_here() // self.engine.workers if self.engine.workers else 0)

    def first(self, batches: Sequence[Mapping[str, Any]]) -> int:
        """The number of the first of these inputs in a dataset of these batches."""
        return sum(batch["count"] for batch in batches[: batches.index(self.batch)])

    def own(self, first: int = 0) -> range:
        """The numbers of this process's inputs, where those before `first` are older ones of the dataset."""
        return range(first + self.shard[0], first + len(self.names), self.shard[1])


def inspect(folder: Path, build: Build) -> Literal["absent", "begun", "finished"]:
    """As `inspect_dataset`; OutputError also if the folder has other inputs and is not to be extended."""
    state = inspect_dataset(folder, build.facts)
    if state == "absent":
        return state
    summary = read_begun(folder)
    if "part" in summary or summary.get("kind") == "merged":
        raise OutputError(f"{folder} was split off, or merged; it is not built on.", "Choose another --output.")
    batches = summary.get("inputs")
    if not isinstance(batches, list) or any(not isinstance(batch, dict) for batch in batches):
        raise OutputError(f"{folder} does not say which inputs it is made of.", "Choose another --output.")
    if build.batch in batches:
        return state
    if not build.extend:
        count = sum(batch.get("count", 0) for batch in batches)
        raise OutputError(
            f"{folder} holds a dataset of other inputs: {count} of them, and {len(build.names)} are named.",
            "Pass --extend to add these, --overwrite to replace those, or choose another --output.",
        )
    if is_packed(folder):
        raise OutputError(
            f"{folder} is in shards, which cannot be extended.", "Unpack it, extend it, and pack it again."
        )
    return "begun"


def begin(build: Build) -> list[dict[str, Any]]:
    """Begin the dataset, or add these inputs to a finished one. Returns all its batches of inputs.

    OutputError where it is not to be extended, or not now.
    """
    state = inspect(build.folder, build)
    if state == "absent":
        begin_dataset(build.folder, {**build.facts, "inputs": [build.batch]})
        inspect(build.folder, build)
    batches = read_begun(build.folder)["inputs"]
    begin_dataset(build.folder, {**build.facts, "inputs": batches})
    if build.batch not in batches:
        if "counts" not in read_begun(build.folder):
            raise OutputError(f"{build.folder} is not finished, so it is not extended.", "Run its own command first.")
        check_space(build, build.own())
        batches = [*batches, build.batch]
        begin_dataset(build.folder, {**build.facts, "inputs": batches}, replace=True)
        if read_begun(build.folder)["inputs"] != batches:
            raise extended(build.folder)
    return batches


def extended(folder: Path) -> OutputError:
    """The sentence for two commands that extend a dataset at once."""
    return OutputError(f"{folder} was extended by another command at the same time.", "Run this one again.")


def packed_counts(build: Build) -> dict[str, int] | None:
    """The counts of the output, if it is finished and in shards. OutputError if a shard is missing."""
    if inspect(build.out, build) != "finished" or not is_packed(build.out):
        return None
    missing = missing_shard(build.out)
    if missing is not None:
        raise OutputError(f"{build.out / missing} is missing, or cut off.", "Pass --overwrite to build it again.")
    return read_summary(build.out)["counts"]


def wait_for_counts(build: Build) -> dict[str, int] | None:
    """The counts of the output, if another process has finished it or does so within two seconds."""
    for _ in range(PATIENCE):
        with contextlib.suppress(PaintprocError):
            packed = build.layout == "shards"
            if inspect(build.out, build) == "finished" and not (packed and missing_shard(build.out)):
                return read_summary(build.out)["counts"]
        time.sleep(0.1)
    return None


def remove_building(build: Build) -> None:
    """Remove the folder in which a finished dataset grew, unless it holds files that are not ours."""
    for _ in range(PATIENCE):
        if build.folder == build.out or not build.folder.is_dir():
            return
        # another process may be removing the same folder
        with contextlib.suppress(OSError):
            if find_foreign(build.folder) is not None:
                return
            shutil.rmtree(build.folder, ignore_errors=True)


def check_finished(folder: Path, build: Build) -> None:
    """Check that a folder, renamed so that only this process uses it, is the finished dataset; remove unfinished work.

    OutputError if it is not finished: another process has taken the finished one, and a third has begun it anew.
    """
    finished = inspect(folder, build) == "finished" and (folder / INPUTS).exists()
    splits = read_summary(folder)["splits"] if finished else {}
    if not finished or any(len(list(folder.glob(f"{split}/*/{RECORD}"))) != size for split, size in splits.items()):
        raise OutputError(f"{build.out} is being built by another process.", "Run the command again.")
    drop_unfinished(folder)


def check_space(build: Build, todo: Sequence[int]) -> None:
    """OutputError if the disk has too little room for the sequences of these inputs."""
    wanted = RESERVE * build.bytes_needed(todo) * (2 if build.layout == "shards" else 1)
    free = free_bytes(build)
    if free < wanted:
        raise OutputError(
            f"{build.out} may need {wanted / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free.",
            "Free some space, or choose another --output.",
        )


def free_bytes(build: Build) -> int:
    """Free bytes on the disk of the dataset."""
    base = next(path for path in (build.folder, *build.folder.absolute().parents) if path.exists())
    with plain_errors(build.out):
        return shutil.disk_usage(base).free


def memory_here() -> int:
    """Bytes of this machine's memory; `LEAST_MEMORY` where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return LEAST_MEMORY
