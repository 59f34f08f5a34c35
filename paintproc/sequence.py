"""`PaintingSequence`: the canvases of one painting from the first to the finished one, and their record on disk."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from paintproc.files import file_digest
from paintproc.scene.values import Scene
from paintproc.strokes.values import Strokes

FORMAT = "paintproc-sequence-1"
RECORD = "sequence.json"
OWN_KEYS = ("format", "size", "frames", "files")
"""Keys of the record that are written from the sequence itself; `info` cannot hold them."""


@dataclass(frozen=True)
class Provenance:
    """Where a sequence comes from, as its record says.

    id         16 hex digits, in a dataset
    sha256     of the source's file, 64 hex digits
    source     the name of the source, as it was given
    prompt, license, origin   what is known of the source
    method     what made the sequence
    seed       of the method
    statement  whether it is a recording or synthetic
    """

    id: str
    sha256: str
    source: str | None = None
    prompt: str | None = None
    license: str | None = None
    origin: str | None = None
    method: str | None = None
    seed: int | None = None
    statement: str = ""

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> "Provenance":
        """From a sequence's `info`, or its record. ValueError if id and source are missing or of a wrong kind."""
        source = info.get("input")
        digest = source.get("sha256") if isinstance(source, Mapping) else None
        name = info.get("id")
        if not (isinstance(name, str) and re.fullmatch("[0-9a-f]{16}", name)):
            raise ValueError(f"its id is {name!r}, not 16 hex digits")
        if not (isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest)):
            raise ValueError(f"the sha256 of its source is {digest!r}")
        known = {key: info.get(key) for key in ("source", "prompt", "license", "origin", "method")}
        for key, value in known.items():
            if not isinstance(value, str | None):
                raise ValueError(f"its {key} is {value!r}, which is no text")
        seed = info.get("seed")
        if not isinstance(seed, int | None):
            raise ValueError(f"its seed is {seed!r}, which is no whole number")
        return cls(name, digest, **known, seed=seed, statement=str(info.get("provenance", "")))


@dataclass(frozen=True, eq=False)
class PaintingSequence:
    """Canvases in painting order, and what is known about them.

    frames    F canvases, uint8 sRGB [H, W, 3], all of one size; the first is the canvas before the first stroke.
              Frames that are read or drawn when asked for have `frame_shape`, (H, W, 3), and are not opened here
    progress  [F] part of painting time passed, non-decreasing, from 0 to 1
    stages    F names: the part of the plan that led to each frame
    captions  F short sentences
    seconds   [F] painting time passed, not negative
    strokes   what was painted, where it is known
    scene     the regions of the painting, where they were looked for
    masks     F masks, bool [H, W]: where paint was laid since the frame before, where the method knows it; the
              first is empty
    target    the painting to be reproduced, uint8 [H, W, 3]; the last frame is the last canvas
    info      method, seed, settings, versions, distances, provenance: values that JSON can hold

    Raises ValueError where lengths, shapes or ranges do not fit.
    """

    frames: Sequence[np.ndarray]
    progress: np.ndarray
    stages: Sequence[str]
    captions: Sequence[str]
    seconds: np.ndarray
    strokes: Strokes | None = None
    scene: Scene | None = None
    masks: Sequence[np.ndarray] | None = None
    target: np.ndarray | None = None
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.frames)
        if count == 0:
            raise ValueError("a sequence has at least one frame")
        for name in ("progress", "stages", "captions", "seconds"):
            if len(getattr(self, name)) != count:
                raise ValueError(f"{count} frames, but {len(getattr(self, name))} {name}")
        progress, seconds = np.asarray(self.progress, np.float64), np.asarray(self.seconds, np.float64)
        if not ((progress >= 0) & (progress <= 1)).all() or (np.diff(progress) < 0).any():
            raise ValueError("progress runs forward within [0, 1]")
        if count > 1 and (progress[0], progress[-1]) != (0, 1):
            raise ValueError(f"progress runs from 0 to 1, not from {progress[0]:g} to {progress[-1]:g}")
        if not ((seconds >= 0) & (seconds < np.inf)).all():
            raise ValueError("seconds are finite and not negative")
        taken = [key for key in OWN_KEYS if key in self.info]
        if taken:
            raise ValueError(f"info holds {taken[0]!r}, which the record says itself")
        shape = self.shape
        for frame in self.frames if isinstance(self.frames, list | tuple) else ():
            if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.shape != shape:
                raise ValueError(f"frames are uint8 [height, width, 3] of one size, got {frame.dtype} {frame.shape}")
        if self.target is not None and self.target.shape != shape:
            raise ValueError(f"the target is {self.target.shape}, the frames are {shape}")
        if self.masks is not None and len(self.masks) != count:
            raise ValueError(f"{count} frames, but {len(self.masks)} masks")
        for mask in self.masks if isinstance(self.masks, list | tuple) else ():
            if mask.dtype != bool or mask.shape != shape[:2]:
                raise ValueError(f"masks are bool of the size of the frames, got {mask.dtype} {mask.shape}")

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, 3) of every frame."""
        return getattr(self.frames, "frame_shape", None) or self.frames[0].shape

    @property
    def provenance(self) -> Provenance:
        """Where the sequence comes from. ValueError outside of datasets, where `info` has no id."""
        return Provenance.of(self.info)

    def __len__(self) -> int:
        return len(self.frames)

    def __repr__(self) -> str:
        height, width = self.shape[:2]
        facts = [f"{len(self)} frame{'s' * (len(self) > 1)} {height} x {width}"]
        facts += [str(self.info["method"])] if "method" in self.info else []
        facts += [f"{len(self.strokes)} strokes"] if self.strokes is not None else []
        return f"PaintingSequence({', '.join(facts)})"


def write_record(sequence: PaintingSequence, folder: Path, frames: Sequence[str] | None) -> None:
    """Write the record of a sequence whose files are in `folder`; `frames` names the files of its frames, if any."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    record = {
        "format": FORMAT,
        **sequence.info,
        "size": list(sequence.shape[:2]),
        "frames": [
            {
                **({"file": frames[k]} if frames else {}),
                "progress": round(float(sequence.progress[k]), 6),
                "stage": sequence.stages[k],
                "caption": sequence.captions[k],
                "seconds": round(float(sequence.seconds[k]), 3),
            }
            for k in range(len(sequence))
        ],
        "files": {name: file_digest(path) for name, path in files.items()},
    }
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / RECORD).write_text(text, encoding="utf-8", newline="\n")


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record in a sequence folder; None where there is none, or one of another format."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return record if is_record(record) else None
    except (OSError, ValueError, RecursionError):
        return None


def is_record(value: Any) -> bool:
    """Whether a JSON value is a sequence's record."""
    try:
        return value["format"] == FORMAT and all(isinstance(name, str) for name in dict(value["files"]))
    except (ValueError, KeyError, TypeError):
        return False


def differences(record: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Each difference between a record and `facts`: the key, such as `settings.size`, its value in the record and in
    `facts`.
    """
    found = dict(_flat(record))
    for key, wanted in _flat(json.loads(json.dumps(facts))):
        if found.get(key) != wanted:
            yield key, found.get(key), wanted


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The values in nested dicts, each with its keys joined by dots."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else key)
    else:
        yield name, value
