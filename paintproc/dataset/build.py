"""Builds a dataset from many inputs. A run that was stopped goes on where it was.

`building.py` runs the function for each input; each sequence appears whole. Every process writes down what became of
its inputs as it goes (`lines.py`). The process that finds all inputs done, skipped or failed writes the lists, the
index and the counts.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from paintproc.building import Item, work_through
from paintproc.dataset.folder import OUTCOMES, finish_dataset, item_names, read_begun, refuse_foreign
from paintproc.dataset.growing import (
    Build,
    begin,
    check_finished,
    check_space,
    extended,
    inspect,
    packed_counts,
    remove_building,
    wait_for_counts,
)
from paintproc.dataset.layout import SPLITS
from paintproc.dataset.lines import Journal, known_lines, parts_are_there, remove_parts, write_part
from paintproc.dataset.shards import pack_dataset
from paintproc.errors import InputError, OutputError, PartialError
from paintproc.files import move_folder, plain_errors, tidy_beside

TRIES = 3
"""How often to make sequences that are found to be missing at the end."""


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
    tell: Callable[[Mapping[str, Any], bool], None] = lambda line, new: None,
    warn: Callable[[str], None] = lambda text: None,
) -> Report:
    """Build a dataset, or go on with one that was begun.

    `progress` is called with the part of the work done; `tell` with the line about each input of this process, and
    whether it was worked on in this run; `warn` with a sentence for each abandoned folder. `check` is called often and
    may raise to stop. OutputError if the output cannot be written or holds something else, PartialError after more than
    `max_bad` failures, Interrupted at the time limit.
    """
    if build.overwrite:
        refuse_foreign(build.out)
    else:
        packed = packed_counts(build)
        if packed is not None:
            remove_building(build)
            return _report_finished(build, packed, tell)
        if build.layout == "shards" and inspect(build.out, build) != "absent":
            raise OutputError(f"{build.out} is a dataset folder.", "Choose --layout folder, or another --output.")
    if build.folder != build.out:
        tidy_beside(build.out)
        for path in build.abandoned():
            warn(f"{path} holds an unfinished dataset of other settings; remove it if nobody goes on with it.")
    try:
        report = _Run(build, progress, check, tell).go()
        if report.counts is None and build.layout == "shards":
            # another process may have packed the same dataset meanwhile; then this folder is not needed
            report = replace(report, counts=packed_counts(build))
            if report.counts is not None:
                remove_building(build)
        return report
    except (InputError, OutputError):
        if build.overwrite:
            raise
        # another process may have finished the same dataset meanwhile, and removed the folder in which it grew
        finished = None if build.folder == build.out else wait_for_counts(build)
        if finished is None:
            raise
        remove_building(build)
        return Report(finished, 0, 0, finished.get("failed", 0))


class _Run:
    """One run of a build: what is known of the inputs, and what is done about them."""

    def __init__(
        self,
        build: Build,
        progress: Callable[[float], None],
        check: Callable[[], None],
        tell: Callable[[Mapping[str, Any], bool], None],
    ) -> None:
        self.build, self.progress, self.check, self.tell = build, progress, check, tell
        self.batches = begin(build)
        self.first = build.first(self.batches)
        self.total = sum(batch["count"] for batch in self.batches)
        self.own = build.own(self.first)
        self.lines = known_lines(build.folder, self.batches)
        self.journal = Journal(build.folder, build.shard, build.batch)
        self.worked_on = self.made = 0

    def go(self) -> Report:
        build = self.build
        present = {name for split in SPLITS for name in item_names(build.folder / split)}
        todo = [place for place in self.own if _is_unfinished(self.lines.get(place), present)]
        unfinished = set(todo)
        for place in self.own:
            if place not in unfinished:
                self.tell(self.lines[place], False)
        try:
            for _ in range(TRIES):
                self._work_on(todo)
                self.check()
                missing = self._finish()
                if isinstance(missing, dict):
                    return self._report(missing)
                # sequences whose files are gone: of other parts, which must make them again, or of this one
                lost = {place for place in range(self.total) if place in self.lines and self._names(place) & missing}
                todo = sorted(lost & set(self.own))
                if not todo:
                    return self._report(None)
                self.lines.drop(lost)
        finally:
            self.journal.close()
        raise OutputError(f"Sequences of {build.folder} vanish as they are made.", "Is another command changing it?")

    def _names(self, place: int) -> set[str]:
        return set(self.lines[place].get("sequences", ()))

    def _report(self, counts: dict[str, int] | None) -> Report:
        failed = sum(self.lines[place]["outcome"] == "failed" for place in self.own if place in self.lines)
        return Report(counts, self.worked_on, self.made, failed)

    def _work_on(self, todo: list[int]) -> None:
        """Work on these inputs; what became of each is in `lines` and in the journal."""
        build = self.build
        if not todo:
            return
        check_space(build, [place - self.first for place in todo])
        self.worked_on += len(todo)
        items = (
            Item(place, build.names[place - self.first], build.task(place - self.first, build.folder)) for place in todo
        )
        outcomes = work_through(
            items,
            build.work,
            len(todo),
            engine=build.engine,
            item_seconds=build.item_seconds,
            time_limit=build.time_limit,
            memory=build.memory(),
            progress=self.progress,
            check=self.check,
        )
        bad = 0
        with contextlib.closing(outcomes):
            for outcome in outcomes:
                if outcome.exit_code == OutputError.exit_code:
                    raise OutputError(outcome.error)
                line: dict[str, Any] = {"input": outcome.item.name}
                if outcome.exit_code:
                    line |= {"outcome": "failed", "error": outcome.error, "exit_code": outcome.exit_code}
                    bad += 1
                else:
                    line |= outcome.result
                    self.made += line.pop("made", 0)
                self.lines[outcome.item.place] = line
                self.journal.add(outcome.item.place - self.first, line)
                self.tell(line, True)
                if build.max_bad is not None and bad > build.max_bad:
                    raise PartialError(f"More than {build.max_bad} inputs failed; what was finished is kept.")

    def _finish(self) -> dict[str, int] | set[str]:
        """Write that this process's part is done. If all parts are, finish the dataset and return its counts.

        Else the ids of sequences that are missing, none where other parts have not ended. OutputError where another
        command has extended the dataset at the same time.
        """
        build = self.build
        batches = read_begun(build.folder)["inputs"]
        if build.batch not in batches:
            raise extended(build.folder)
        if build.shard[1] > 1:
            write_part(build.folder, build.shard, build.batch, self.lines, self.own, self.first)
            self.journal.discard()
            if len(self.lines) < self.total and not parts_are_there(build.folder, build.shard[1], build.batch):
                return set()
            self._learn()
        if len(self.lines) < self.total or batches != self.batches:
            return set()
        outcomes, ids = Counter[str](), set[str]()
        for line in self.lines:
            outcomes[line["outcome"]] += 1
            ids.update(line.get("sequences", ()))
        counts = {"inputs": self.total, **{name: outcomes[name] for name in OUTCOMES}, "sequences": len(ids)}
        with plain_errors(build.out):
            missing = finish_dataset(build.folder, counts, self.lines)
        if missing:
            return missing
        self.journal.discard()
        remove_parts(build.folder)
        self._deliver()
        return counts

    def _learn(self) -> None:
        """Take over what other processes have written about their inputs."""
        own = {place: self.lines[place] for place in self.own}
        self.lines = known_lines(self.build.folder, self.batches)
        for place, line in own.items():
            self.lines[place] = line

    def _deliver(self) -> None:
        """Put the finished dataset in its place, if it grew elsewhere."""
        build = self.build
        guard = (lambda: refuse_foreign(build.out)) if build.overwrite else None
        if build.layout == "shards":
            try:
                pack_dataset(build.folder, build.out, build.shard_size, lambda done: self.check(), replace=guard)
            except OutputError:
                # another process may have packed it at the same time
                if build.overwrite or packed_counts(build) is None:
                    raise
            remove_building(build)
        elif guard is not None:
            guard()
            move_folder(build.folder, build.out, lambda folder: check_finished(folder, build))


def _report_finished(build: Build, counts: dict[str, int], tell: Callable[[Mapping[str, Any], bool], None]) -> Report:
    """Report a dataset that another run has finished, in shards."""
    lines = known_lines(build.out, [])
    for place in build.own(build.first(read_begun(build.out)["inputs"])):
        tell(lines[place], False)
    return Report(counts, 0, 0, counts.get("failed", 0))


def _is_unfinished(line: Mapping[str, Any] | None, present: set[str]) -> bool:
    """True if this input is unprocessed, incomplete, or failed for a reason worth retrying: not for its own fault."""
    if line is None:
        return True
    if line["outcome"] == "failed":
        return line["exit_code"] != InputError.exit_code
    return line["outcome"] == "done" and not present.issuperset(line.get("sequences", ()))
