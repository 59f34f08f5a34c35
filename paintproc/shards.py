"""A dataset folder as WebDataset tars, and back: byte for byte the same.

    dataset.json            as in the folder, with inputs.jsonl and failures.jsonl
    shards.jsonl            name, number of sequences, bytes and sha256 of each shard
    train-00000.tar         <id>.000.png ... <id>.sequence.json [<id>.strokes.safetensors], sorted by id

Members are dated 1970 and have no owner, so the same sequences give the same bytes.
"""

import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from paintproc.dataset import (
    FAILURES,
    INPUTS,
    SPLITS,
    SUMMARY,
    finish_dataset,
    read_inputs,
    read_lines,
    read_summary,
    whole_item,
)
from paintproc.errors import InputError
from paintproc.files import file_digest, whole_folder
from paintproc.sequence import RECORD

SHARDS = "shards.jsonl"
SHARD_SIZE = 1 << 30
"""Bytes of a shard, unless one sequence alone has more."""
MEMBER = re.compile(r"([0-9a-f]{16})\.([0-9]{3,9}\.png|sequence\.json|strokes\.safetensors)")
VERIFY = "`paintproc synth verify` says what is wrong."
LARGEST = 1 << 30
"""Most bytes of one member."""


def pack_dataset(
    dataset: Path,
    out: Path,
    shard_size: int = SHARD_SIZE,
    progress: Callable[[float], None] = lambda done: None,
    *,
    replace: Callable[[], None] | None = None,
) -> list[dict[str, Any]]:
    """Write a finished dataset folder as tars into the new folder `out`. Returns the lines of shards.jsonl.

    InputError if `dataset` is no finished dataset folder, or an item is not whole. OutputError if `out` exists and
    `replace` is not given; `replace` is as in `whole_folder`.
    """
    summary = read_summary(dataset)
    total, done, listed = max(1, sum(summary["splits"].values())), 0, []
    packed = dict.fromkeys(SPLITS, 0)
    with whole_folder(out, replace=replace) as scratch:
        for split in SPLITS:
            items = sorted(path for path in (dataset / split).glob("*") if path.is_dir() and path.name[0] != ".")
            for number, group in enumerate(_groups(items, shard_size)):
                path = scratch / f"{split}-{number:05d}.tar"
                with tarfile.open(path, "x", format=tarfile.USTAR_FORMAT) as shard:
                    for item in group:
                        _add(shard, item)
                        packed[split] += 1
                        done += 1
                        progress(done / total)
                line = {"name": path.name, "sequences": len(group), "bytes": path.stat().st_size}
                listed.append(line | {"sha256": file_digest(path)})
        if packed != summary["splits"]:
            raise InputError(f"{dataset} counts {summary['splits']} sequences, and {packed} are there.", VERIFY)
        text = "".join(json.dumps(line) + "\n" for line in listed)
        (scratch / SHARDS).write_text(text, encoding="utf-8", newline="\n")
        _copy_lists(dataset, scratch)
    return listed


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

    InputError if a shard is missing, changed, or holds anything but sequences. OutputError if `out` exists and
    `replace` is not given; `replace` is as in `whole_folder`.
    """
    summary = read_summary(packed)
    listed = read_shards(packed)
    with whole_folder(out, replace=replace) as scratch:
        for place, line in enumerate(listed):
            path = packed / line["name"]
            if not path.is_file() or file_digest(path) != line["sha256"]:
                raise InputError(f"{path} is missing, or was changed since it was packed.")
            split = line["name"].rpartition("-")[0]
            for name, data in shard_members(path):
                key, kind = name.split(".", 1)
                folder = scratch / split / key
                folder.mkdir(parents=True, exist_ok=True)
                (folder / kind).write_bytes(data)
            progress((place + 1) / len(listed))
        _copy_lists(packed, scratch)
        finish_dataset(scratch, summary["counts"], read_inputs(packed))
        if (scratch / SUMMARY).read_bytes() != (packed / SUMMARY).read_bytes():
            raise InputError(f"{packed / SHARDS} does not list all that {packed / SUMMARY} counts.")


def _copy_lists(dataset: Path, out: Path) -> None:
    for name in (INPUTS, FAILURES, SUMMARY):
        if name == SUMMARY or (dataset / name).exists():
            (out / name).write_bytes((dataset / name).read_bytes())


def read_shards(packed: Path) -> list[dict[str, Any]]:
    """The lines of shards.jsonl. InputError if it is damaged, or names anything but shards."""
    try:
        listed = [json.loads(line) for line in read_lines(packed / SHARDS)]
        if any(not re.fullmatch(rf"({'|'.join(SPLITS)})-\d{{5,}}\.tar", line["name"]) for line in listed):
            raise ValueError("it names another file than a shard")
        if any(not isinstance(line["sha256"], str) or not isinstance(line["bytes"], int) for line in listed):
            raise ValueError("a sha256 or a size is missing")
        return listed
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{packed / SHARDS} cannot be read: {error}.") from error


def shard_members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each member, in order. InputError for anything that `pack_dataset` does not write."""
    try:
        with tarfile.open(path, "r:") as shard:
            for member in shard:
                if not member.isreg() or not MEMBER.fullmatch(member.name) or member.size > LARGEST:
                    raise InputError(f"{path} holds {member.name!r}, which is no part of a sequence.")
                file = shard.extractfile(member)
                data = b"" if file is None else file.read()
                if len(data) != member.size:
                    raise InputError(f"{path} is cut off.")
                yield member.name, data
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"{path} is damaged, or no shard: {error}.") from error


def _groups(items: list[Path], shard_size: int) -> Iterator[list[Path]]:
    """The items of each shard."""
    group: list[Path] = []
    held = 0
    for item in items:
        size = sum(path.stat().st_size for path in item.iterdir())
        if group and held + size > shard_size:
            yield group
            group, held = [], 0
        group.append(item)
        held += size
    if group:
        yield group


def _add(shard: tarfile.TarFile, item: Path) -> None:
    """Append the files of an item to a shard, its record last."""
    record = whole_item(item)
    names = sorted(record["files"]) if record else []
    if not record or any(not MEMBER.fullmatch(f"{item.name}.{name}") for name in [*names, RECORD]):
        raise InputError(f"{item} is no whole sequence of a dataset.", VERIFY)
    for name in [*names, RECORD]:
        try:
            data = (item / name).read_bytes()
        except OSError as error:
            raise InputError(f"{item / name} cannot be read: {(error.strerror or str(error)).lower()}.") from error
        member = tarfile.TarInfo(f"{item.name}.{name}")
        member.size, member.mode = len(data), 0o644
        shard.addfile(member, io.BytesIO(data))
