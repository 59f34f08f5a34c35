"""One input of a dataset: reads it, paints it by every method, writes the sequences and the line about them."""

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from paintproc.config.synth import SynthConfig
from paintproc.dataset.items import whole_item, write_item
from paintproc.dataset.layout import split_of
from paintproc.errors import PaintprocError
from paintproc.media import Picture, load_picture, shrink_picture
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
from paintproc.synth.sources import Source, find_sources, read_source
from paintproc.threads import thread_count


@dataclass(frozen=True)
class Task:
    """One input, and how and where to paint it."""

    source: Source
    config: SynthConfig
    networks: SceneNetworks
    folder: Path


def paint_source(task: Task) -> dict[str, Any]:
    """Write the sequences of one input that are missing. Returns what became of it; `made` is how many were missing.

    PaintprocError if it cannot be read or painted.
    """
    source, config = task.source, task.config
    if source.skip:
        return {"outcome": "skipped", "reason": source.skip}
    try:
        data = read_source(source)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise PaintprocError(f"{source.name} cannot be read just now: {reason}.") from error
    picture = prepare_picture(data, source.name, config.size, config.shape)
    if picture is None:
        small = f"a side is shorter than {SMALLEST} pixels"
        small += "" if config.shape == "crop" else f" at --size {config.size}"
        return {"outcome": "skipped", "reason": small}
    ids = {method: sequence_id(picture.sha256, config, method, task.networks) for method in methods(config)}
    split = task.folder / split_of(picture.sha256)
    left = [method for method in ids if whole_item(split / ids[method]) is None]
    if left:
        facts = {"source": source.name, **source.facts}
        scene = find_scene(picture.pixels, observe(picture.pixels, task.networks)) if needs_scene(config) else None
        for method in left:
            write_item(task.folder, make_sequence(picture, config, method, task.networks, scene, facts))
    notes = {"notes": list(picture.notes)} if picture.notes else {}
    line = {"outcome": "done", "sha256": picture.sha256, "sequences": list(ids.values()), **notes}
    return line | {"made": len(left)}


def prepare_picture(data: bytes, name: str, size: int, shape: str) -> Picture | None:
    """The picture in an image file, of the shape and size in which it is painted; None where it is too small.

    InputError, about `name`, if it cannot be read.
    """
    # the longer side of a crop is the shorter one of the picture
    picture = load_picture(data, name, None if shape == "crop" else size)
    if min(picture.pixels.shape[:2]) < SMALLEST:
        return None
    return shrink_picture(replace(picture, pixels=shape_picture(picture.pixels, shape)), size)


def paint_in_worker(task: Task) -> dict[str, Any]:
    """`paint_source` in a worker process."""
    import cv2

    cv2.setNumThreads(thread_count())
    return paint_source(task)


def pictures_by_digest(named: Sequence[str]) -> Callable[[Mapping[str, Any]], np.ndarray | None]:
    """Finds the picture from which the sequence of a record was made, among inputs as `synth` takes them.

    The function gives uint8 [H, W, 3], prepared as the record's settings say; None where no input has the sha256 of
    the record's. InputError if no name leads to an image.
    """
    digests: dict[str, Source] = {}
    for source in find_sources(named) if named else []:
        with contextlib.suppress(OSError, PaintprocError):
            digests.setdefault(hashlib.sha256(read_source(source)).hexdigest(), source)

    def find(record: Mapping[str, Any]) -> np.ndarray | None:
        source = digests.get(record["input"]["sha256"])
        settings = record.get("settings", {})
        if source is None:
            return None
        picture = prepare_picture(read_source(source), source.name, settings["size"], settings["shape"])
        return None if picture is None else picture.pixels

    return find
