"""One item of a dataset: written whole or not at all, read file by file when it is asked for."""

import errno
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from paintproc.dataset.layout import (
    MASKS,
    PICTURES,
    SCENES,
    STROKES,
    ItemLayout,
    frame_names,
    kept_name,
    split_of,
)
from paintproc.dataset.scenes import scene_from_png, scene_to_png
from paintproc.errors import InputError, OutputError
from paintproc.files import whole_file, whole_folder
from paintproc.png import MOST_PIXELS, decode_png, encode_png
from paintproc.scene.values import Scene
from paintproc.sequence import RECORD, PaintingSequence, is_record, read_record, write_record
from paintproc.strokes.values import Strokes, strokes_from_bytes, strokes_to_bytes
from paintproc.version import __version__

Read = Callable[[str], bytes]
"""Gives the bytes of a file by its name in the item, or of a kept file by its name in the split."""


def write_item(dataset: Path, sequence: PaintingSequence) -> Path:
    """Add a sequence to a dataset folder, whole or not at all. Returns the item's folder.

    `sequence.info` holds what `Provenance` needs. Its picture and its scene are kept once for all sequences that have
    the same. An item that is already whole stays as it is; one with files missing is replaced. Many processes may write
    at once, also the same item. OutputError where the file system refuses. What dead processes left is not removed here
    but by `begin_dataset`.
    """
    provenance = sequence.provenance
    split = dataset / split_of(provenance.sha256)
    item = split / provenance.id
    if whole_item(item) is not None:
        return item

    def refuse_whole() -> None:
        if whole_item(item) is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(item))

    comment = f"paintproc {__version__}; {provenance.statement}"
    text = {"Software": "paintproc", "Comment": comment}
    kept: dict[str, str] = {}
    if sequence.target is not None:
        kept["picture_file"] = _keep(split, PICTURES, encode_png(sequence.target, {"Software": "paintproc"}))
    if sequence.scene is not None:
        kept["scene_file"] = _keep(split, SCENES, scene_to_png(sequence.scene))
    try:
        with whole_folder(item, replace=refuse_whole, tidy=False) as scratch:
            frames = frame_names(len(sequence))
            for frame, pixels in zip(frames, sequence.frames, strict=True):
                (scratch / frame).write_bytes(encode_png(pixels, text))
            if sequence.masks is not None and len(sequence) * math.prod(sequence.shape[:2]) <= MOST_PIXELS[np.bool_]:
                (scratch / MASKS).write_bytes(encode_png(np.concatenate(list(sequence.masks))))
            if sequence.strokes is not None:
                (scratch / STROKES).write_bytes(strokes_to_bytes(sequence.strokes, {"provenance": comment}))
            write_record(replace(sequence, info=sequence.info | kept), scratch, frames)
    except OutputError as error:
        reason = getattr(error.__cause__, "errno", None)
        if reason not in (errno.EEXIST, errno.ENOTEMPTY) or whole_item(item) is None:
            raise
        # another process was faster
    return item


def _keep(split: Path, folder: str, data: bytes) -> str:
    """Write a file that several items share, unless it is there. Returns its name in the split."""
    name = kept_name(folder, data)
    if not _is_plain_file(split / name):
        with whole_file(split / name, replace=True, tidy=False) as scratch:
            scratch.write_bytes(data)
    return name


def whole_item(item: Path) -> ItemLayout | None:
    """The layout of an item, if its record fits its folder and all its files are there, no links among them."""
    try:
        record = read_record(item)
        layout = None if record is None else ItemLayout.of(record)
        if layout is None or layout.provenance.id != item.name or layout.split != item.parent.name:
            return None
        paths = [item / RECORD, *(item / name for name in layout.files), *(item.parent / name for name in layout.kept)]
        return layout if not item.is_symlink() and all(map(_is_plain_file, paths)) else None
    except (ValueError, OSError):
        return None


def _is_plain_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


@dataclass(frozen=True, eq=False)
class StoredItem:
    """One sequence in a dataset, of which only the record is read; its other files are read when asked for."""

    layout: ItemLayout
    record: Mapping[str, Any]
    read: Read

    @classmethod
    def of(cls, record: bytes, read: Read, name: str) -> "StoredItem":
        """From the bytes of a record. InputError, about `name`, if it is none of ours."""
        try:
            parsed = json.loads(record)
            if not is_record(parsed):
                raise ValueError("it is no sequence's record")
            return cls(ItemLayout.of(parsed), parsed, read)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{name} holds no sequence: {str(error).rstrip('.')}.") from error

    def __repr__(self) -> str:
        return f"StoredItem({self.layout.provenance.id}, {len(self.layout.frames)} frames)"

    def frame(self, number: int) -> np.ndarray:
        """Frame `number`, uint8 [H, W, 3]. InputError if it is missing or damaged."""
        name = self.layout.frames[number]
        return decode_png(self.read(name), np.uint8, self.layout.size, f"{self.layout.provenance.id}/{name}")[0]

    def masks(self) -> np.ndarray | None:
        """The masks, bool [F, H, W]; None where there are none. InputError if they are damaged."""
        if MASKS not in self.layout.files or self.layout.size is None:
            return None
        height, width = self.layout.size
        count = len(self.layout.frames)
        name = f"{self.layout.provenance.id}/{MASKS}"
        return decode_png(self.read(MASKS), np.bool_, (count * height, width), name)[0].reshape(count, height, width)

    def picture(self) -> np.ndarray | None:
        """The picture as it was painted, uint8 [H, W, 3]; None where it was not kept."""
        name = self.layout.picture
        return None if name is None else decode_png(self.read(name), np.uint8, self.layout.size, name)[0]

    def scene(self) -> Scene | None:
        """The picture's scene; None where none was looked for."""
        name = self.layout.scene
        return None if name is None else scene_from_png(self.read(name), self.layout.size, name)

    def strokes(self) -> Strokes | None:
        """What was painted; None where strokes were not kept."""
        name = f"{self.layout.provenance.id}/{STROKES}"
        return strokes_from_bytes(self.read(STROKES), name) if STROKES in self.layout.files else None

    def sequence(self) -> PaintingSequence:
        """The sequence; its frames are read when they are asked for. InputError if it is not whole."""
        layout = self.layout
        masks = self.masks()
        own = ("format", "size", "frames", "files", "picture_file", "scene_file")
        try:
            return PaintingSequence(
                frames=StoredFrames(self),
                progress=np.array(layout.progress),
                stages=list(layout.stages),
                captions=list(layout.captions),
                seconds=np.array(layout.seconds),
                strokes=self.strokes(),
                scene=self.scene(),
                masks=None if masks is None else list(masks),
                target=self.picture(),
                info={key: value for key, value in self.record.items() if key not in own},
            )
        except ValueError as error:
            raise InputError(f"{layout.provenance.id}/{RECORD} does not fit its files: {error}.") from error


class StoredFrames(Sequence[np.ndarray]):
    """The frames of an item; each is read whenever it is asked for."""

    def __init__(self, item: StoredItem) -> None:
        self.item = item

    @property
    def frame_shape(self) -> tuple[int, ...]:
        size = self.item.layout.size
        return self.item.frame(0).shape if size is None else (*size, 3)

    def __len__(self) -> int:
        return len(self.item.layout.frames)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[k] for k in range(len(self))[index]]
        return self.item.frame(range(len(self))[index])


def open_item(item: Path) -> StoredItem:
    """The item in a folder. InputError if it holds none."""

    def read(name: str) -> bytes:
        path = (item.parent if "/" in name else item) / name
        try:
            if path.is_symlink():
                raise InputError(f"{path} is a link, which is not followed.")
            return path.read_bytes()
        except OSError as error:
            raise InputError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}.") from error

    return StoredItem.of(read(RECORD), read, str(item))
