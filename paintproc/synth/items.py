"""One input of a dataset: read, painted by every method, written; and the line about it."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from paintproc.config.synth import SynthConfig
from paintproc.dataset import split_of, write_item
from paintproc.errors import PaintprocError
from paintproc.media import Picture, load_picture, shrink_picture
from paintproc.scene.find import find_scene
from paintproc.scene.networks import Choice, look
from paintproc.sequence import read_record
from paintproc.strokes.rasterize import thread_count
from paintproc.synth.sequences import (
    SMALLEST,
    make_sequence,
    methods,
    needs_scene,
    sequence_id,
    shape_picture,
)
from paintproc.synth.sources import Source, read_source


@dataclass(frozen=True)
class Task:
    """One input and what is to become of it."""

    place: int
    source: Source
    config: SynthConfig
    networks: Choice
    folder: Path


def paint_source(task: Task) -> dict[str, Any]:
    """Turn one input into its sequences: the line about it. Errors are PaintprocError."""
    if task.source.skip:
        return line_about(task.source, "skipped", reason=task.source.skip)
    try:
        data = read_source(task.source)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise PaintprocError(f"{task.source.name} cannot be read just now: {reason}.") from error
    picture = fitting_picture(data, task.source.name, task.config)
    if min(picture.pixels.shape[:2]) < SMALLEST:
        return line_about(task.source, "skipped", reason=f"a side is shorter than {SMALLEST} pixels")
    ids = {method: sequence_id(picture.sha256, task.config, method, task.networks) for method in methods(task.config)}
    left = [method for method in ids if read_record(_item(task.folder, picture, ids[method])) is None]
    if left:
        facts = {"source": task.source.name, **task.source.facts}
        scene = find_scene(picture.pixels, look(picture.pixels, task.networks)) if needs_scene(task.config) else None
        for method in left:
            sequence = make_sequence(picture, task.config, method, task.networks, scene, facts)
            write_item(task.folder, sequence)
    notes = {"notes": list(picture.notes)} if picture.notes else {}
    return line_about(task.source, "done", sha256=picture.sha256, sequences=list(ids.values()), **notes)


def fitting_picture(data: bytes, name: str, config: SynthConfig) -> Picture:
    """The picture in an image file, of the size and shape that `config` asks for. InputError where it is none."""
    # the longer side of a crop is the shorter one of the picture
    cropped = config.shape == "crop"
    picture = load_picture(data, name, None if cropped else config.size)
    picture = replace(picture, pixels=shape_picture(picture.pixels, config.shape))
    return shrink_picture(picture, config.size) if cropped else picture


def paint_in_worker(task: Task) -> tuple[dict[str, Any], float]:
    """In a worker: the line about an input, and the seconds it took."""
    import cv2

    cv2.setNumThreads(thread_count())
    begun = time.monotonic()
    return paint_source(task), time.monotonic() - begun


def line_about(source: Source, outcome: str, **more: Any) -> dict[str, Any]:
    """What became of an input, as the lists say it."""
    return {"input": source.name, "outcome": outcome, **more}


def _item(folder: Path, picture: Picture, name: str) -> Path:
    return folder / split_of(picture.sha256) / name
