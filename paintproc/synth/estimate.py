"""How many bytes and seconds a dataset will take."""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from paintproc.config.synth import SynthConfig
from paintproc.errors import InputError, PaintprocError
from paintproc.files import temporary_folder
from paintproc.media import picture_size
from paintproc.scene.networks import SceneNetworks
from paintproc.synth.items import Task, paint_source
from paintproc.synth.sequences import methods
from paintproc.synth.sources import Source, read_source

BYTES_A_PIXEL = 1.0
"""Bytes of a painted pixel as PNG, estimated rather too high."""
BYTES_AN_ITEM = 60_000
"""Bytes of an item beside its frames."""
SAMPLE = 20
"""How many pictures are opened to find how large frames will be."""


def bytes_needed(sources: Sequence[Source], config: SynthConfig, todo: Sequence[int]) -> float:
    """Bytes that the sequences of these inputs, by number, may take."""
    frame = max((_pixels(sources[place], config) for place in todo[:SAMPLE]), default=0)
    return len(todo) * len(methods(config)) * (config.num_frames * frame * BYTES_A_PIXEL + BYTES_AN_ITEM)


def _pixels(source: Source, config: SynthConfig) -> int:
    """The most pixels that a frame of this input can have; 0 if it cannot be read."""
    with contextlib.suppress(OSError, PaintprocError):
        height, width = picture_size(read_source(source))
        scale = min(1.0, config.size / max(height, width))
        sides = (height, width) if config.shape == "keep" else (max(height, width),) * 2
        return round(scale * sides[0]) * round(scale * sides[1])
    return 0


def estimate(
    sources: Sequence[Source], config: SynthConfig, networks: SceneNetworks, workers: int
) -> dict[str, int | float]:
    """Paint the first picture that can be read, and multiply: pictures, sequences, bytes, seconds.

    `workers` are 0 where it is not known how many there will be: then the seconds are those of one. InputError if
    none can be painted.
    """
    paintable = [source for source in sources if not (source.skip or source.broken)]
    count = len(methods(config))
    with temporary_folder() as scratch:
        for number, source in enumerate(paintable):
            with contextlib.suppress(PaintprocError):
                # a first, short painting loads the kernels, which is not timed
                few = replace(config, strokes=10)
                paint_source(Task(source, few, networks, Path(scratch, "few")))
                begun, folder = time.monotonic(), Path(scratch, str(number))
                if paint_source(Task(source, config, networks, folder))["outcome"] == "done":
                    break
        else:
            raise InputError("None of the inputs can be painted.")
        seconds = time.monotonic() - begun
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {
        "pictures": len(paintable),
        "sequences": len(paintable) * count,
        "skipped": sum(bool(source.skip) for source in sources),
        "broken": sum(bool(source.broken) for source in sources),
        "bytes": size * len(paintable),
        "seconds": round(seconds * len(paintable) / max(1, workers), 1),
    }
