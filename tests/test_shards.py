"""Shards: a dataset packed and unpacked is the same, and what is no shard is refused."""

import hashlib
import io
import itertools
import json
import tarfile
import time

import numpy as np
import pytest
from test_dataset import build, contents, dataset  # noqa: F401

from paintproc.dataset.layout import MEMBER
from paintproc.dataset.shards import pack_dataset, read_shards, unpack_dataset
from paintproc.dataset.verify import verify_dataset
from paintproc.errors import InputError, OutputError

SIZE = 12_000


def test_packed_and_unpacked_is_the_same(dataset, tmp_path):  # noqa: F811
    listed = pack_dataset(dataset, tmp_path / "packed", SIZE)
    assert len(listed) > 2 and sum(line["sequences"] for line in listed) == 12
    assert read_shards(tmp_path / "packed") == listed
    unpack_dataset(tmp_path / "packed", tmp_path / "again")
    assert contents(tmp_path / "again") == contents(dataset)


def test_the_same_sequences_give_the_same_bytes(dataset, tmp_path, monkeypatch):  # noqa: F811
    pack_dataset(dataset, tmp_path / "one", SIZE)
    build(tmp_path / "d2", reversed(range(12)))
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.sleep(1.1)
    pack_dataset(tmp_path / "d2", tmp_path / "two", SIZE)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_members_are_grouped_as_webdataset_reads_them(dataset, tmp_path):  # noqa: F811
    (tmp_path / "names").write_text("")
    for line in pack_dataset(dataset, tmp_path / "packed", SIZE):
        with tarfile.open(tmp_path / "packed" / line["name"]) as shard:
            keys = [name.split(".", 1)[0] for name in shard.getnames()]
            assert all(MEMBER.fullmatch(name) for name in shard.getnames())
            assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in shard} == {(0, 0, 0, "", "")}
        own = [key for key in keys if "/" not in key]
        assert len(set(own)) == line["sequences"] and len(list(itertools.groupby(own))) == len(set(own))
        assert len({key for key in keys if "/" in key}) == 2 * len(set(own)), "a picture and a scene each"


def test_an_output_that_exists_is_left_alone(dataset, tmp_path):  # noqa: F811
    pack_dataset(dataset, tmp_path / "packed", SIZE)
    before = contents(tmp_path / "packed")
    done = []
    with pytest.raises(OutputError, match="exists already"):
        pack_dataset(dataset, tmp_path / "packed", SIZE, done.append)
    with pytest.raises(OutputError, match="exists already"):
        unpack_dataset(tmp_path / "packed", dataset, done.append)
    assert contents(tmp_path / "packed") == before
    assert not done, "that is said before any work is done"


@pytest.mark.parametrize("place", [0, 700, -1500])
def test_a_changed_shard_is_refused(dataset, tmp_path, place):  # noqa: F811
    name = pack_dataset(dataset, tmp_path / "packed", SIZE)[1]["name"]
    data = bytearray((tmp_path / "packed" / name).read_bytes())
    data[place] ^= 1
    (tmp_path / "packed" / name).write_bytes(bytes(data))
    with pytest.raises(InputError, match="was changed since it was packed"):
        unpack_dataset(tmp_path / "packed", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def hostile(name: str, kind: bytes = tarfile.REGTYPE) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as shard:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "/etc/passwd"
        member.size = 3 if kind == tarfile.REGTYPE else 0
        shard.addfile(member, io.BytesIO(b"abc"))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        hostile("../0123456789abcdef.000.png"),
        hostile("/tmp/0123456789abcdef.000.png"),
        hostile("0123456789abcdef.../../x.png"),
        hostile("0123456789abcdef.000.png", tarfile.SYMTYPE),
        hostile("0123456789abcdef.000.png", tarfile.LNKTYPE),
        hostile("0123456789abcdef.run.py"),
        b"no tar at all" * 100,
    ],
)
def test_what_is_no_shard_is_refused(dataset, tmp_path, data):  # noqa: F811
    listed = pack_dataset(dataset, tmp_path / "packed")
    (tmp_path / "packed" / listed[0]["name"]).write_bytes(data)
    listed[0]["sha256"] = hashlib.sha256(data).hexdigest()
    (tmp_path / "packed" / "shards.jsonl").write_text("".join(json.dumps(line) + "\n" for line in listed))
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(InputError):
        unpack_dataset(tmp_path / "packed", tmp_path / "again")
    assert {path.name for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["../x.tar", "train-0.tar", "test-00000.tar", "/train-00000.tar", "train-00000.tar\n"])
def test_a_list_that_leads_elsewhere_is_refused(dataset, tmp_path, name):  # noqa: F811
    pack_dataset(dataset, tmp_path / "packed")
    (tmp_path / "packed" / "shards.jsonl").write_text(json.dumps({"name": name, "sha256": ""}) + "\n")
    with pytest.raises(InputError, match="names another file"):
        read_shards(tmp_path / "packed")


def test_a_missing_line_is_noticed(dataset, tmp_path):  # noqa: F811
    pack_dataset(dataset, tmp_path / "packed", SIZE)
    path = tmp_path / "packed" / "shards.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match="does not list all"):
        unpack_dataset(tmp_path / "packed", tmp_path / "again")


def test_shards_are_verified(dataset, tmp_path):  # noqa: F811
    name = pack_dataset(dataset, tmp_path / "packed", SIZE)[0]["name"]
    assert not verify_dataset(tmp_path / "packed")
    path = tmp_path / "packed" / name
    whole = path.read_bytes()
    path.unlink()
    assert verify_dataset(tmp_path / "packed") == [f"{name} is missing, or was changed since it was packed."]
    # a frame that does not fit its record, in a shard that fits the list
    data = bytearray(whole)
    index = (tmp_path / "packed" / f"{name.rpartition('-')[0]}.jsonl").read_text().splitlines()
    data[json.loads(index[0])["at"]["item"][0] + 512 + 60] ^= 1
    path.write_bytes(bytes(data))
    listed = (tmp_path / "packed" / "shards.jsonl").read_text()
    old, new = (hashlib.sha256(content).hexdigest() for content in (whole, data))
    (tmp_path / "packed" / "shards.jsonl").write_text(listed.replace(old, new))
    assert any("does not fit its record" in problem for problem in verify_dataset(tmp_path / "packed"))


def repacked(packed, change):
    """Change the members of the first shard, and its line in the list with them."""
    listed = read_shards(packed)
    path = packed / listed[0]["name"]
    with tarfile.open(path) as shard:
        members = [(member.name, shard.extractfile(member).read()) for member in shard]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as shard:
        for name, data in change(members):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            shard.addfile(member, io.BytesIO(data))
    data = path.read_bytes()
    listed[0] |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (packed / "shards.jsonl").write_text("".join(json.dumps(line) + "\n" for line in listed))


def record_at(members):
    return next(k for k, (name, _) in enumerate(members) if name.endswith(".sequence.json"))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: [*m, next(each for each in m if each[0].endswith(".000.png"))],  # a frame after its record
        lambda m: [*m[: record_at(m)], m[record_at(m) - 1], *m[record_at(m) :]],  # a member twice
        lambda m: [*m[: record_at(m)], (m[record_at(m)][0][:17] + "009.png", b""), *m[record_at(m) :]],  # one more
        lambda m: [each for k, each in enumerate(m) if k != record_at(m) - 1],  # one less
        lambda m: [each for k, each in enumerate(m) if k != record_at(m)],  # no record
        lambda m: m[1:],  # no picture
        lambda m: [(m[0][0], b"other"), *m[1:]],  # another picture
        lambda m: [m[0], *m],  # a picture twice
        lambda m: m + m[: record_at(m) + 1],  # a sequence twice
        lambda m: [*m[: record_at(m) - 1], (m[record_at(m) - 1][0], b"x"), *m[record_at(m) :]],  # another frame
    ],
)
def test_a_shard_that_is_not_what_was_packed_is_refused(dataset, tmp_path, change):  # noqa: F811
    """Also where the list of shards was made to fit."""
    packed = tmp_path / "packed"
    pack_dataset(dataset, packed)
    repacked(packed, lambda members: members)
    assert not verify_dataset(packed)
    repacked(packed, change)
    assert verify_dataset(packed)
    with pytest.raises(InputError):
        unpack_dataset(packed, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_sparse_member_is_refused(dataset, tmp_path):  # noqa: F811
    """GNU tar's sparse files are a gigabyte in one header."""
    packed = tmp_path / "packed"
    listed = pack_dataset(dataset, packed)
    path = packed / listed[0]["name"]
    member = tarfile.TarInfo("0123456789abcdef.000.png")
    member.type, member.size = tarfile.GNUTYPE_SPARSE, 0
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"%011o\0" % (1 << 30)
    header[148:156] = b"%06o\0 " % sum([*header[:148], *b" " * 8, *header[156:512]])
    data = bytes(header) + bytes(1024)
    path.write_bytes(data)
    listed[0] |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (packed / "shards.jsonl").write_text("".join(json.dumps(line) + "\n" for line in listed))
    with pytest.raises(InputError, match="no part of a sequence"):
        unpack_dataset(packed, tmp_path / "again")


def test_what_was_changed_is_not_packed(dataset, tmp_path):  # noqa: F811
    from test_dataset import damage_frame, first_item

    damage_frame(first_item(dataset))
    with pytest.raises(InputError, match="was changed since it was made"):
        pack_dataset(dataset, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()


@pytest.mark.parametrize("address", [False, True])
def test_shards_are_read_as_the_folder_is(dataset, tmp_path, address):  # noqa: F811
    from paintproc.dataset import Dataset

    if address:
        pytest.importorskip("fsspec")
    packed = tmp_path / "packed"
    pack_dataset(dataset, packed, SIZE)
    given = {read.info["id"]: read for read in Dataset(dataset)}
    found = Dataset(f"file://{packed}" if address else packed)
    assert len(found) == len(given)
    for read in found:
        own = given[read.info["id"]]
        assert read.info == own.info and read.captions == own.captions
        assert all(np.array_equal(a, b) for a, b in zip(read.frames, own.frames, strict=True))
        assert np.array_equal(read.target, own.target) and np.array_equal(read.masks, own.masks)
        assert np.array_equal(read.scene.parts, own.scene.parts)


@pytest.mark.parametrize(
    "wrong",
    [
        {"shard": "../x.tar"},
        {"shard": "validation-00000.tar"},
        {"item": [512, 99]},
        {"item": [1 << 40, 9]},
        {"item": 1},
    ],
)
def test_an_index_that_leads_elsewhere_is_refused(dataset, tmp_path, wrong):  # noqa: F811
    from paintproc.dataset import Dataset

    packed = tmp_path / "packed"
    pack_dataset(dataset, packed)
    path = packed / "train.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["at"] |= wrong
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InputError):
        Dataset(packed)[0]
    assert Dataset(packed)[1]


def test_what_is_packed_and_what_is_not(dataset, tmp_path):  # noqa: F811
    pack_dataset(dataset, tmp_path / "packed")
    with pytest.raises(InputError, match="is in shards already"):
        pack_dataset(tmp_path / "packed", tmp_path / "twice")
    with pytest.raises(InputError, match="is not in shards"):
        unpack_dataset(dataset, tmp_path / "again")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d", "packed"]


def test_a_shard_is_no_larger_than_asked(dataset, tmp_path):  # noqa: F811
    """Its pictures, headers and padding count; the end of a tar is at most 10 kB."""
    listed = pack_dataset(dataset, tmp_path / "packed", 40_000)
    assert any(line["sequences"] > 1 for line in listed)
    assert all(line["bytes"] <= 40_000 + 10_240 or line["sequences"] == 1 for line in listed)
