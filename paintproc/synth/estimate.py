"""How many bytes and seconds a dataset will take, and whether the disk has room for it."""

import contextlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from paintproc.config.synth import SynthConfig
from paintproc.dataset import inspect_dataset
from paintproc.errors import InputError, OutputError, PaintprocError
from paintproc.files import plain_errors, temporary_folder
from paintproc.media import picture_size
from paintproc.sequence import RECORD, read_record
from paintproc.synth.items import Task, paint_source
from paintproc.synth.sequences import methods
from paintproc.synth.sources import Source, read_source

if TYPE_CHECKING:
    from paintproc.synth.build import Build

BYTES_A_PIXEL = 1.0
"""Bytes of a painted pixel as PNG, estimated rather too high."""
BYTES_AN_ITEM = 60_000
"""Bytes of an item beside its frames."""
SAMPLE = 20
"""How many pictures are opened to find how large frames will be."""
RESERVE = 1.1
"""Free space that must be there before the start, as a multiple of the expected size."""


def check_space(build: "Build", todo: Sequence[int]) -> None:
    """OutputError if the disk has too little room for what these inputs still lack."""
    frame = max((_pixels(build.sources[place], build.config) for place in todo[:SAMPLE]), default=0)
    item = build.config.num_frames * frame * BYTES_A_PIXEL + BYTES_AN_ITEM
    items = max(0, len(todo) * len(methods(build.config)) - _written(build, todo))
    wanted, free = int(RESERVE * items * item * (2 if build.layout == "shards" else 1)), _free(build)
    if free < wanted:
        raise OutputError(
            f"{build.out} may need {wanted / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free.",
            "Free some space, or choose another --output.",
        )


def _written(build: "Build", todo: Sequence[int]) -> int:
    """How many sequences of these inputs are on disk; those of other inputs, and so of other shards, do not count."""
    names = {build.sources[place].name for place in todo}
    records = (read_record(path.parent) for path in build.folder.glob(f"*/*/{RECORD}"))
    return sum(record is not None and record.get("source") in names for record in records)


def _pixels(source: Source, config: SynthConfig) -> int:
    """The most pixels that a frame of this input can have; 0 if it cannot be read."""
    with contextlib.suppress(OSError, PaintprocError):
        height, width = picture_size(read_source(source))
        scale = min(1.0, config.size / max(height, width))
        sides = (height, width) if config.shape == "keep" else (max(height, width),) * 2
        return round(scale * sides[0]) * round(scale * sides[1])
    return 0


def estimate(build: "Build") -> dict[str, int | float]:
    """Paint the first picture that can be read, and multiply: pictures, sequences, bytes, seconds.

    InputError if none can be painted.
    """
    if not build.overwrite:
        inspect_dataset(build.out, build.facts)
    own = [build.sources[place] for place in build.own()]
    paintable = [source for source in own if not (source.skip or source.broken)]
    count = len(methods(build.config))
    with temporary_folder() as scratch:
        for number, source in enumerate(paintable):
            with contextlib.suppress(PaintprocError):
                # a first, short painting loads the kernels, which is not timed
                few = replace(build.config, strokes=10)
                paint_source(Task(0, source, few, build.networks, Path(scratch, "few")))
                begun, folder = time.monotonic(), Path(scratch, str(number))
                line, _ = paint_source(Task(0, source, build.config, build.networks, folder))
                if line["outcome"] == "done":
                    break
        else:
            raise InputError("None of the inputs can be painted.")
        seconds = time.monotonic() - begun
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {
        "pictures": len(paintable),
        "sequences": len(paintable) * count,
        "skipped": sum(bool(source.skip) for source in own),
        "broken": sum(bool(source.broken) for source in own),
        "bytes": size * len(paintable),
        "seconds": round(seconds * len(paintable) / build.workers, 1),
        "free_bytes": _free(build),
    }


def _free(build: "Build") -> int:
    """Free bytes on the disk of the dataset."""
    base = next(path for path in (build.folder, *build.folder.absolute().parents) if path.exists())
    with plain_errors(build.out):
        return shutil.disk_usage(base).free
