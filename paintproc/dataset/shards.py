"""A dataset folder as WebDataset tars, and back: byte for byte the same.

    dataset.json            as in the folder, with inputs.jsonl and failures.jsonl
    shards.jsonl            name, number of sequences, bytes and sha256 of each shard
    train.jsonl             the index: a line for each sequence in the order of the shards, and where it lies
    train-00000.tar         pictures/<sha256>.png, scenes/<sha256>.png, then the sequences made from them:
                            <id>.000.png ... [<id>.masks.png] <id>.sequence.json [<id>.strokes.safetensors]

Sequences of one picture follow each other, so that a shard holds a picture once, before them. Members are dated 1970
and have no owner, so the same sequences give the same bytes.
"""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paintproc.building import FAILURES
from paintproc.dataset.folder import finish_dataset, is_packed, layouts, read_inputs, read_lines, read_summary
from paintproc.dataset.layout import (
    INPUTS,
    MEMBER,
    SHARDS,
    SPLITS,
    SUMMARY,
    ItemLayout,
)
from paintproc.errors import InputError
from paintproc.files import file_digest, whole_folder
from paintproc.sequence import RECORD, is_record

SHARD_SIZE = 1 << 30
"""Bytes of a shard, unless one sequence alone has more."""
LARGEST = 1 << 30
"""Most bytes of one member."""
BLOCK = 512
VERIFY = "`paintproc dataset verify` says what is wrong."


def pack_dataset(
    dataset: Path,
    out: Path,
    shard_size: int = SHARD_SIZE,
    progress: Callable[[float], None] = lambda done: None,
    *,
    replace: Callable[[], None] | None = None,
) -> list[dict[str, Any]]:
    """Write a finished dataset folder as tars into the new folder `out`. Returns the lines of shards.jsonl.

    InputError if `dataset` is no finished dataset folder, or an item is not whole or was changed. OutputError if `out`
    exists and `replace` is not given; `replace` is as in `whole_folder`.
    """
    summary = read_summary(dataset)
    if is_packed(dataset):
        raise InputError(f"{dataset} is in shards already.")
    total, done, listed = max(1, sum(summary["splits"].values())), 0, list[dict[str, Any]]()
    packed = dict.fromkeys(SPLITS, 0)
    with whole_folder(out, replace=replace) as scratch:
        for split in SPLITS:
            items = _by_picture(dataset / split)
            index = scratch / f"{split}.jsonl"
            with index.open("w", encoding="utf-8", newline="\n") as lines:
                for number, group in enumerate(_groups(dataset / split, items, shard_size)):
                    path = scratch / f"{split}-{number:05d}.tar"
                    with tarfile.open(path, "x", format=tarfile.USTAR_FORMAT) as shard:
                        written: dict[str, tuple[int, int]] = {}
                        for layout in group:
                            line = layout.line() | {"at": _add(shard, dataset / split, layout, written)}
                            lines.write(json.dumps(line, ensure_ascii=False) + "\n")
                            packed[split] += 1
                            done += 1
                            progress(done / total)
                    facts = {"name": path.name, "sequences": len(group), "bytes": path.stat().st_size}
                    listed.append(facts | {"sha256": file_digest(path)})
            if not packed[split]:
                index.unlink()
        if packed != summary["splits"]:
            raise InputError(f"{dataset} counts {summary['splits']} sequences, and {packed} are there.", VERIFY)
        text = "".join(json.dumps(line) + "\n" for line in listed)
        (scratch / SHARDS).write_text(text, encoding="utf-8", newline="\n")
        copy_lists(dataset, scratch)
    return listed


def _by_picture(split: Path) -> list[tuple[str, str]]:
    """The ids of a split, each after its picture's name, in the order in which they are packed."""
    return sorted((layout.picture or "", layout.provenance.id) for layout in layouts(split))


def _groups(split: Path, items: list[tuple[str, str]], shard_size: int) -> Iterator[list[ItemLayout]]:
    """The items of each shard."""
    group: list[ItemLayout] = []
    held = 0
    kept = set[str]()
    for _, name in items:
        layout = _layout(split, name)
        own = sum(_in_tar(split / name / file) for file in layout.members)
        size = own + sum(_in_tar(split / file) for file in layout.kept if file not in kept)
        if group and held + size > shard_size:
            yield group
            group, held, kept = [], 0, set()
            size = own + sum(_in_tar(split / file) for file in layout.kept)
        group.append(layout)
        held += size
        kept.update(layout.kept)
    if group:
        yield group


def _in_tar(path: Path) -> int:
    """Bytes of a file in a tar, with its header."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}.", VERIFY) from error
    return BLOCK + size + -size % BLOCK


def _layout(split: Path, name: str) -> ItemLayout:
    try:
        return ItemLayout.of(json.loads((split / name / RECORD).read_bytes()))
    except (OSError, ValueError) as error:
        raise InputError(f"{split / name} is no whole sequence of a dataset.", VERIFY) from error


def _add(
    shard: tarfile.TarFile, split: Path, layout: ItemLayout, written: dict[str, tuple[int, int]]
) -> dict[str, Any]:
    """Append an item to a shard, after its picture and its scene where these are not `written`.

    Returns where they lie: `item`, `picture` and `scene`, each the offset of its first header, and its bytes with
    headers.
    """
    place: dict[str, Any] = {"shard": Path(str(shard.name)).name}
    for kept in layout.kept:
        if kept not in written:
            digest = kept.rpartition("/")[2].removesuffix(".png")
            written[kept] = _append(shard, split / kept, kept, digest)
        place[kept.partition("s/")[0]] = written[kept]
    name, begin = layout.provenance.id, shard.offset
    for file in layout.members:
        _append(shard, split / name / file, f"{name}.{file}", layout.files.get(file))
    return place | {"item": (begin, shard.offset - begin)}


def _append(shard: tarfile.TarFile, path: Path, name: str, digest: str | None) -> tuple[int, int]:
    """Append a file under a name. Returns the offset of its header, and its bytes with the header.

    InputError if it is missing or has another digest.
    """
    try:
        if path.is_symlink():
            raise InputError(f"{path} is a link, which is not followed.", VERIFY)
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}.") from error
    if digest not in (None, hashlib.sha256(data).hexdigest()):
        raise InputError(f"{path} was changed since it was made.", VERIFY)
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    offset = shard.offset
    shard.addfile(member, io.BytesIO(data))
    return offset, BLOCK + len(data)


def missing_shard(packed: Path) -> str | None:
    """The name of the first shard that is missing or has not the listed size. InputError if the list is damaged."""
    for line in read_shards(packed):
        path = packed / line["name"]
        if not path.is_file() or path.stat().st_size != line["bytes"]:
            return str(line["name"])
    return None


def unpack_dataset(
    packed: Path,
    out: Path,
    progress: Callable[[float], None] = lambda done: None,
    *,
    replace: Callable[[], None] | None = None,
) -> None:
    """Write packed sequences as the new dataset folder `out`, byte for byte what was packed.

    InputError if a shard is missing, changed, or holds anything but whole sequences. OutputError if `out` exists and
    `replace` is not given; `replace` is as in `whole_folder`.
    """
    summary = read_summary(packed)
    listed = read_shards(packed)
    with whole_folder(out, replace=replace) as scratch:
        for place, line in enumerate(listed):
            path = packed / line["name"]
            if not _is_listed(path, line):
                raise InputError(f"{path} is missing, or was changed since it was packed.")
            split = scratch / line["name"].rpartition("-")[0]
            for part in read_shard(path):
                target = split / part.name
                if target.exists() and part.id:
                    raise InputError(f"{path} holds {part.name} a second time.")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(part.data)
            progress((place + 1) / len(listed))
        copy_lists(packed, scratch)
        missing = finish_dataset(scratch, summary["counts"], read_inputs(packed))
        if missing or (scratch / SUMMARY).read_bytes() != (packed / SUMMARY).read_bytes():
            raise InputError(f"{packed / SHARDS} does not list all that {packed / SUMMARY} counts.")


def _is_listed(path: Path, line: Mapping[str, Any]) -> bool:
    """Whether a shard is as its line in the list says."""
    return path.is_file() and path.stat().st_size == line["bytes"] and file_digest(path) == line["sha256"]


def copy_lists(dataset: Path, out: Path) -> None:
    """Copy the summary and the lists of inputs and failures."""
    for name in (INPUTS, FAILURES, SUMMARY):
        if name == SUMMARY or (dataset / name).exists():
            (out / name).write_bytes((dataset / name).read_bytes())


def read_shards(packed: Path) -> list[dict[str, Any]]:
    """The lines of shards.jsonl. InputError if it is damaged, or names anything but shards, or one twice."""
    try:
        listed = [json.loads(line) for line in read_lines(packed / SHARDS)]
        if any(not re.fullmatch(rf"({'|'.join(SPLITS)})-\d{{5,}}\.tar", line["name"]) for line in listed):
            raise ValueError("it names another file than a shard")
        if len({line["name"] for line in listed}) != len(listed):
            raise ValueError("it names a shard twice")
        if any(not isinstance(line["sha256"], str) or not isinstance(line["bytes"], int) for line in listed):
            raise ValueError("a sha256 or a size is missing")
        return listed
    except FileNotFoundError:
        raise InputError(f"{packed} is not in shards: it has no {SHARDS}.") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{packed / SHARDS} cannot be read: {error}.") from error


@dataclass(frozen=True)
class Part:
    """One file in a shard."""

    id: str | None
    """The item it belongs to; None for a picture or a scene."""
    name: str
    """Where it lies in the split of a dataset folder."""
    data: bytes
    offset: int
    """Where its header begins in the shard."""


def read_shard(path: Path) -> Iterator[Part]:
    """The files in a shard, in order; an item's come when all of them are there and fit its record.

    InputError for anything that `pack_dataset` does not write: members of other names or kinds, in another order,
    twice, too many or too few, or with other bytes than their name or the record says.
    """
    kept, done = set[str](), set[str]()
    item: list[Part] = []
    for name, data, offset in _members(path):
        found = MEMBER.fullmatch(name)
        if found is None:
            raise InputError(f"{path} holds {name!r}, which is no part of a sequence.")
        key, file = found["id"], found["file"]
        if item and key != item[0].id:
            raise InputError(f"{path}: {item[0].id} has no record.")
        if key is None:
            if name in kept or hashlib.sha256(data).hexdigest() not in name:
                raise InputError(f"{path}: {name} is there twice, or was changed since it was made.")
            kept.add(name)
            yield Part(None, name, data, offset)
            continue
        item.append(Part(key, f"{key}/{file}", data, offset))
        if file == RECORD:
            layout = _checked(path, item)
            if key in done or not kept.issuperset(layout.kept):
                raise InputError(f"{path}: {key} is there twice, or its picture is not there before it.")
            done.add(key)
            yield from item
            item = []
    if item:
        raise InputError(f"{path}: {item[0].id} has no record.")


def _checked(path: Path, item: list[Part]) -> ItemLayout:
    """The layout of an item whose files, the record last, were read. InputError if they do not fit the record."""
    name = item[-1].id
    try:
        record = json.loads(item[-1].data)
        if not is_record(record):
            raise ValueError("it is no sequence's record")
        layout = ItemLayout.of(record)
        if layout.provenance.id != name or f"{layout.split}-" != path.name[: len(layout.split) + 1]:
            raise ValueError("its id or its split is another one")
        found = [part.name.partition("/")[2] for part in item]
        if found != layout.members:
            raise ValueError(f"its files are {', '.join(found)}")
        for part, file in zip(item, layout.members, strict=True):
            if file != RECORD and hashlib.sha256(part.data).hexdigest() != layout.files[file]:
                raise ValueError(f"{file} was changed since it was made")
        return layout
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: {name} does not fit its record: {error}.") from error


def _members(path: Path) -> Iterator[tuple[str, bytes, int]]:
    """Name, bytes and offset of each member. InputError where a member is no plain file, or the shard is damaged."""
    try:
        end = path.stat().st_size
        with path.open("rb") as file:
            while True:
                offset = file.tell()
                found = read_header(file.read(BLOCK), str(path))
                if found is None:
                    return
                name, size = found
                if offset + BLOCK + size > end:
                    raise InputError(f"{path} is cut off.")
                data = file.read(size)
                file.seek(-size % BLOCK, 1)
                yield name, data, offset
    except OSError as error:
        raise InputError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}.") from error


def read_header(block: bytes, name: str) -> tuple[str, int] | None:
    """Name and size of a member, from its header of 512 bytes; None at the end of the shard.

    Only plain files as `pack_dataset` writes them are taken. InputError, about the shard `name`, for all else: links,
    sparse files, extended headers, damage.
    """
    if block == bytes(BLOCK):
        return None
    try:
        member = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.TarError, ValueError) as error:
        raise InputError(f"{name} is damaged, or no shard: {error}.") from error
    if member.type != tarfile.REGTYPE or not 0 <= member.size <= LARGEST:
        raise InputError(f"{name} holds {member.name!r}, which is no part of a sequence.")
    return member.name, member.size
