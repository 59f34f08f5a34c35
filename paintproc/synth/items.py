"""One input of a dataset: reads it, paints it by every method, writes the sequences and the line about them."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from paintproc.config.synth import SynthConfig
from paintproc.dataset import split_of, whole_item, write_item
from paintproc.errors import PaintprocError
from paintproc.media import load_picture, shrink_picture
from paintproc.scene.find import find_scene
from paintproc.scene.networks import SceneNetworks, observe
from paintproc.synth.sequences import (
    SMALLEST,
    make_sequence,
    methods,
    needs_scene,
    sequence_id,
    shape_picture,
)
from paintproc.synth.sources import Source, read_source
from paintproc.threads import thread_count


@dataclass(frozen=True)
class Task:
    """One input, and how and where to paint it."""

    place: int
    source: Source
    config: SynthConfig
    networks: SceneNetworks
    folder: Path


def paint_source(task: Task) -> tuple[dict[str, Any], int]:
    """Write the sequences of one input that are missing. Returns the line about it, and how many sequences were made.

    PaintprocError if it cannot be read or painted.
    """
    source, config = task.source, task.config
    if source.skip:
        return line_about(source, "skipped", reason=source.skip), 0
    try:
        data = read_source(source)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise PaintprocError(f"{source.name} cannot be read just now: {reason}.") from error
    # the longer side of a crop is the shorter one of the picture
    cropped = config.shape == "crop"
    picture = load_picture(data, source.name, None if cropped else config.size)
    if min(picture.pixels.shape[:2]) < SMALLEST:
        small = f"a side is shorter than {SMALLEST} pixels" + ("" if cropped else f" at --size {config.size}")
        return line_about(source, "skipped", reason=small), 0
    picture = replace(picture, pixels=shape_picture(picture.pixels, config.shape))
    picture = shrink_picture(picture, config.size)
    ids = {method: sequence_id(picture.sha256, config, method, task.networks) for method in methods(config)}
    split = task.folder / split_of(picture.sha256)
    left = [method for method in ids if whole_item(split / ids[method]) is None]
    if left:
        facts = {"source": source.name, **source.facts}
        scene = find_scene(picture.pixels, observe(picture.pixels, task.networks)) if needs_scene(config) else None
        for method in left:
            write_item(task.folder, make_sequence(picture, config, method, task.networks, scene, facts))
    notes = {"notes": list(picture.notes)} if picture.notes else {}
    return line_about(source, "done", sha256=picture.sha256, sequences=list(ids.values()), **notes), len(left)


def paint_in_worker(task: Task) -> tuple[dict[str, Any], int, float]:
    """`paint_source` in a worker process. Returns the line, how many sequences were made, and the seconds it took."""
    import cv2

    cv2.setNumThreads(thread_count())
    begun = time.monotonic()
    line, made = paint_source(task)
    return line, made, time.monotonic() - begun


def line_about(source: Source, outcome: str, **more: Any) -> dict[str, Any]:
    """A line of inputs.jsonl: what became of an input."""
    return {"input": source.name, "outcome": outcome, **more}
