"""The sequences of one split, by number: from a dataset folder or from shards, on this machine or elsewhere."""

import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from paintproc.dataset.items import StoredItem
from paintproc.dataset.layout import FORMATS, INDEX, ITEM, MEMBER, SHARDS, SUMMARY
from paintproc.dataset.shards import BLOCK, read_header
from paintproc.errors import InputError, MissingError
from paintproc.sequence import RECORD, PaintingSequence

if TYPE_CHECKING:
    from paintproc.dataset.frames import Augment, Frames


class Dataset:
    """The sequences of one split, by number; what is read of each is read when it is asked for.

    `place` is the folder of a dataset or of its shards: a path, or an address that `fsspec` opens, such as
    `s3://bucket/packed`. InputError if it is no finished dataset, or has no such split; MissingError where an address
    needs `fsspec`.
    """

    def __init__(self, place: str | Path, split: str = "train") -> None:
        self.place, self.split = str(place).rstrip("/") or "/", split
        self.summary = self._read_summary()
        if split not in self.summary["splits"]:
            raise InputError(f"{place} has no split {split!r}.", f"It has {' and '.join(self.summary['splits'])}.")
        self.packed = self._exists(SHARDS)
        self._index: list[bytes] = []
        if self.summary["splits"][split]:
            # without sequences it has no folder and no index
            index = f"{split}.jsonl" if self.packed else f"{split}/{INDEX}"
            if self.packed and not self._exists(index):
                raise InputError(f"{place} has no index: its shards are of an older format.", "Unpack it first.")
            self._index = self._read(index).split(b"\n")[:-1]

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, number: int) -> PaintingSequence:
        return self.item(number).sequence()

    def __iter__(self) -> Iterator[PaintingSequence]:
        return (self[number] for number in range(len(self)))

    def __repr__(self) -> str:
        return f"Dataset({self.place!r}, {self.split!r}: {len(self)} sequences)"

    def ids(self) -> list[str]:
        """The ids of all sequences, by number."""
        found = (re.search(rb'"id": "([0-9a-f]{16})"', line) for line in self._index)
        return [each[1].decode() if each else self.line(number)["id"] for number, each in enumerate(found)]

    def line(self, number: int) -> dict[str, Any]:
        """What the index says of a sequence. InputError if it is damaged."""
        try:
            line = json.loads(self._index[number])
            if not ITEM.fullmatch(line["id"]):
                raise ValueError(f"{line['id']!r} is no id")
            return line
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"The index of {self.place} is damaged: {error}.") from error

    def item(self, number: int) -> StoredItem:
        """A sequence of which only the record is read. InputError if it is missing or damaged."""
        line = self.line(number)
        name = line["id"]
        read = ShardItem(self, line).read if self.packed else partial(self._read_file, name)
        return StoredItem.of(read(RECORD), read, f"{self.place}/{self.split}/{name}")

    def frames(
        self,
        num_frames: int = 8,
        size: int | tuple[int, int] | None = None,
        augment: "Augment | None" = None,
        seed: int = 0,
    ) -> "Frames":
        """The sequences as tensors, for training; see `paintproc.dataset.frames.Frames`. MissingError without torch."""
        from paintproc.dataset.frames import Frames

        return Frames(self, num_frames, size, augment, seed)

    def _read_file(self, item: str, name: str) -> bytes:
        return self._read(f"{self.split}/{name}" if "/" in name else f"{self.split}/{item}/{name}")

    def read_range(self, name: str, begin: int, size: int) -> bytes:
        """Bytes of a file of the dataset. OSError if they cannot be read."""
        if not self.remote:
            with self._open(name) as file:
                file.seek(begin)
                return file.read(size)
        files, path = self._files(name)
        return files.cat_file(path, start=begin, end=begin + size)

    @property
    def remote(self) -> bool:
        """Whether the dataset is at an address, not in a folder."""
        return "://" in self.place

    def _read_summary(self) -> dict[str, Any]:
        try:
            with self._open(SUMMARY) as file:
                summary = json.load(file)
            if summary["format"] not in FORMATS:
                raise ValueError(f"its format is {summary['format']!r}")
            if not isinstance(summary.get("splits"), dict):
                raise InputError(
                    f"{self.place} is a dataset that was begun and is not finished.", "Run its command again."
                )
            return summary
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{self.place} is no dataset folder: {error}.") from error
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise InputError(f"{self.place} is no dataset folder: {SUMMARY} cannot be read, {reason}.") from error

    def _read(self, name: str) -> bytes:
        try:
            with self._open(name) as file:
                return file.read()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise InputError(f"{self.place}/{name} cannot be read: {reason}.") from error

    def _exists(self, name: str) -> bool:
        try:
            with self._open(name):
                return True
        except OSError:
            return False

    def _open(self, name: str) -> IO[bytes]:
        """A file of the dataset. OSError if it cannot be opened, or is a link: a dataset holds none."""
        if self.remote:
            files, address = self._files(name)
            return files.open(address, "rb")
        path = Path(self.place, name)
        for part in (path, *path.parents[: len(Path(name).parts) - 1]):
            if part.is_symlink():
                raise OSError(f"{part.name} is a link, which is not followed")
        return path.open("rb")

    def _files(self, name: str) -> tuple[Any, str]:
        """The file system of an address, and a file's path in it."""
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            raise MissingError(f"{self.place} needs fsspec.", "Install it with: pip install fsspec") from None
        return url_to_fs(f"{self.place}/{name}")


class ShardItem:
    """Reads the files of one item in a shard. From an address the whole item is read at once."""

    def __init__(self, dataset: Dataset, line: Mapping[str, Any]) -> None:
        self.dataset, self.line = dataset, line
        self.places: dict[str, tuple[int, int]] = {}
        self.block: tuple[int, bytes] | None = None

    def read(self, name: str) -> bytes:
        """A file of the item, or a kept file, by its name. InputError if it is not there or damaged."""
        try:
            shard, key = str(self.line["at"]["shard"]), str(self.line["id"])
            if not (shard.startswith(f"{self.dataset.split}-") and shard.endswith(".tar") and "/" not in shard):
                raise ValueError(f"{shard!r} is no shard")
            if "/" in name:
                begin, size = map(int, self.line["at"][name.partition("s/")[0]])
                data = self.dataset.read_range(shard, begin, size)
                if read_header(data[:BLOCK], shard) != (name, len(data) - BLOCK):
                    raise ValueError(f"{name} is not where it should be")
                return data[BLOCK:]
            if not self.places:
                self._find(shard, key, *map(int, self.line["at"]["item"]))
            return self._bytes(shard, *self.places[name])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self.dataset.place} cannot be read: {error}.") from error

    def _find(self, shard: str, key: str, offset: int, size: int) -> None:
        """Find where each file of the item begins, and its size; the record is the last of them."""
        if self.dataset.remote:
            self.block = offset, self.dataset.read_range(shard, offset, size)
        end, places = offset + size, dict[str, tuple[int, int]]()
        while RECORD not in places and offset < end:
            found = read_header(self._bytes(shard, offset, BLOCK), shard)
            member = MEMBER.fullmatch(found[0]) if found else None
            if found is None or member is None or member["id"] != key:
                raise ValueError(f"{key} is not where it should be")
            places[member["file"]] = offset + BLOCK, found[1]
            offset += BLOCK + found[1] + -found[1] % BLOCK
        self.places = places

    def _bytes(self, shard: str, begin: int, size: int) -> bytes:
        if self.block is None:
            data = self.dataset.read_range(shard, begin, size)
        else:
            first, held = self.block
            data = held[begin - first : begin - first + size]
        if len(data) != size:
            raise ValueError(f"{shard} is cut off")
        return data
