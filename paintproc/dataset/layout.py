"""What lies where in a dataset, and what its names mean.

    dataset.json                  format, settings, inputs; the counts are added at the end
    inputs.jsonl                  what became of each input
    failures.jsonl                the inputs that failed, if any
    train/metadata.jsonl          the index: one line for each sequence, sorted by id, made from the records
    train/pictures/<sha256>.png   a picture as it was painted, once for all sequences made from it
    train/scenes/<sha256>.png     its scene, where one was looked for (scenes.py)
    train/<id>/000.png ...        one item: frames, sequence.json (its record) [masks.png] [strokes.safetensors]
    validation/...

Pictures and scenes are named by the sha256 of their bytes. An item is the folder of one sequence; it appears whole. Its
id depends on the source image and the settings, its split on the source image alone, so all sequences of one painting
are in the same split. Format 1 is the same without pictures, scenes and masks.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paintproc.sequence import RECORD, Provenance

FORMATS = ("paintproc-dataset-2", "paintproc-dataset-1")
"""The formats that are read; the first is written."""
INDEX, SUMMARY, INPUTS, SHARDS = (
    "metadata.jsonl", "dataset.json", "inputs.jsonl", "shards.jsonl",
)  # fmt: skip
SPLITS = ("train", "validation")
STROKES, MASKS = "strokes.safetensors", "masks.png"
PICTURES, SCENES = "pictures", "scenes"
ITEM = re.compile("[0-9a-f]{16}")
KEPT = re.compile(f"({PICTURES}|{SCENES})/([0-9a-f]{{64}})[.]png")
"""The files of a split that several items share."""
FILE = rf"[0-9]{{3,9}}[.]png|{re.escape(RECORD)}|{re.escape(STROKES)}|{re.escape(MASKS)}"
"""The files of an item."""
MEMBER = re.compile(rf"(?P<id>[0-9a-f]{{16}})[.](?P<file>{FILE})|{KEPT.pattern}")
"""The members of a shard."""
OURS = re.compile(
    r"dataset\.json|(inputs|failures|shards)\.jsonl|parts(/[0-9]{5}-of-[0-9]{5}(\.[0-9a-f]{8}){1,2}\.jsonl)?"
    rf"|(train|validation)(-[0-9]{{5,}}\.tar|\.jsonl|/metadata\.jsonl|/({PICTURES}|{SCENES})|/{KEPT.pattern}"
    rf"|(/[0-9a-f]{{16}}(/(?P<file>{FILE}))?)?)"
)
"""The paths in a dataset folder that belong to it."""
VALIDATION = 0.05
"""Share of the source images whose sequences are in the validation split."""
FACTS = ("prompt", "source", "method", "seed", "license", "origin")
"""What the index says of where a sequence comes from."""


def split_of(source: str) -> str:
    """The split of all sequences of a source image; `source` is the sha256 of its file."""
    return "validation" if int(source[:8], 16) < VALIDATION * 2**32 else "train"


def item_id(source: str, facts: Mapping[str, Any]) -> str:
    """16 hex digits, from the sha256 of the source image's file and all facts that decide the sequence."""
    text = json.dumps(facts, sort_keys=True, allow_nan=False)
    return hashlib.sha256(f"{source} {text}".encode()).hexdigest()[:16]


def frame_names(count: int) -> list[str]:
    """The files of `count` frames, in order."""
    digits = max(3, len(str(count - 1)))
    return [f"{k:0{digits}d}.png" for k in range(count)]


def kept_name(folder: str, data: bytes) -> str:
    """The file in a split, `pictures/<sha256>.png` or `scenes/<sha256>.png`, of these bytes."""
    return f"{folder}/{hashlib.sha256(data).hexdigest()}.png"


@dataclass(frozen=True)
class ItemLayout:
    """The files of one item, as its record names them; every name is one of ours."""

    provenance: Provenance
    size: tuple[int, int] | None
    """Height and width of the frames; None in format 1, which does not say it."""
    frames: tuple[str, ...]
    files: Mapping[str, str]
    """The sha256 of each file of the item's folder."""
    picture: str | None
    """`pictures/<sha256>.png` in the split; None where it was not kept."""
    scene: str | None
    """`scenes/<sha256>.png` in the split; None where there is none."""
    progress: tuple[float, ...]
    seconds: tuple[float, ...]
    stages: tuple[str, ...]
    captions: tuple[str, ...]

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "ItemLayout":
        """From an item's record. ValueError, in a sentence, for a record that does not fit."""
        try:
            frames, files = list(record["frames"]), dict(record["files"])
            layout = cls(
                provenance=Provenance.of(record),
                size=None if record.get("size") is None else (int(record["size"][0]), int(record["size"][1])),
                frames=tuple(frame["file"] for frame in frames),
                files=files,
                picture=record.get("picture_file"),
                scene=record.get("scene_file"),
                progress=tuple(float(frame["progress"]) for frame in frames),
                seconds=tuple(float(frame["seconds"]) for frame in frames),
                stages=tuple(str(frame["stage"]) for frame in frames),
                captions=tuple(str(frame["caption"]) for frame in frames),
            )
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(f"its record is damaged: {type(error).__name__} {error}") from error
        if not frames or list(layout.frames) != frame_names(len(frames)):
            raise ValueError("its frames are not 000.png, 001.png and so on")
        if not {*layout.frames} <= {*files} <= {*layout.frames, MASKS, STROKES}:
            raise ValueError("its files are not its frames, its masks and its strokes")
        if any(not re.fullmatch("[0-9a-f]{64}", str(digest)) for digest in files.values()):
            raise ValueError("a sha256 is damaged")
        for kept, folder in ((layout.picture, PICTURES), (layout.scene, SCENES)):
            if kept is not None and not (isinstance(kept, str) and KEPT.fullmatch(kept) and kept.startswith(folder)):
                raise ValueError(f"{kept!r} is no file of {folder}/")
        return layout

    @property
    def split(self) -> str:
        return split_of(self.provenance.sha256)

    @property
    def kept(self) -> tuple[str, ...]:
        """The files outside the item's folder that it needs, relative to the split."""
        return tuple(name for name in (self.picture, self.scene) if name)

    @property
    def members(self) -> list[str]:
        """The files of the item's folder in the order in which a shard has them: the record last."""
        return [*sorted(self.files), RECORD]

    def line(self) -> dict[str, Any]:
        """The line of the index."""
        name = self.provenance.id
        return {
            "file_names": [f"{name}/{frame}" for frame in self.frames],
            **({"picture_file_name": self.picture} if self.picture else {}),
            **({"scene_file_name": self.scene} if self.scene else {}),
            **({"masks_file_name": f"{name}/{MASKS}"} if MASKS in self.files else {}),
            **({"size": list(self.size)} if self.size else {}),
            "id": name,
            **{fact: getattr(self.provenance, fact) for fact in FACTS},
            "sha256": self.provenance.sha256,
            "progress": list(self.progress),
            "stages": list(self.stages),
            "captions": list(self.captions),
            "seconds": list(self.seconds),
        }
