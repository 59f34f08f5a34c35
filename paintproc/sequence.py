"""`PaintingSequence`: the canvases of one painting from the first to the finished one, and their record on disk."""

import json
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
OWN_KEYS = ("format", "frames", "files")
"""Keys of the record that are written from the sequence itself; `info` cannot hold them."""


@dataclass(frozen=True, eq=False)
class PaintingSequence:
    """Canvases in painting order, and what is known about them.

    frames    F canvases, uint8 sRGB [H, W, 3], all of one size; the first is the canvas before the first stroke
    progress  [F] part of painting time passed, non-decreasing, from 0 to 1
    stages    F names: the part of the plan that led to each frame
    captions  F short sentences
    seconds   [F] painting time passed, not negative
    strokes   what was painted, where it is known
    scene     the regions of the painting, where they were looked for
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
        first = self.frames[0]
        # frames that are made when asked for are checked by the first
        for frame in self.frames if isinstance(self.frames, list | tuple) else (first,):
            if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.shape != first.shape:
                raise ValueError(f"frames are uint8 [height, width, 3] of one size, got {frame.dtype} {frame.shape}")
        if self.target is not None and self.target.shape != first.shape:
            raise ValueError(f"the target is {self.target.shape}, the frames are {first.shape}")

    def __len__(self) -> int:
        return len(self.frames)

    def __repr__(self) -> str:
        height, width = self.frames[0].shape[:2]
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
        sound = record["format"] == FORMAT and all(isinstance(name, str) for name in dict(record["files"]))
        return record if sound else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


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
