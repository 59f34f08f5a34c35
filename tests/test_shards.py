"""Shards: a dataset packed and unpacked is the same, and what is no shard is refused."""

import hashlib
import io
import tarfile
import time

import pytest
from paintproc.shards import MEMBER, pack_dataset, read_shards, unpack_dataset
from paintproc.verify import verify_shards
from test_dataset import build, contents, dataset  # noqa: F401

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
        assert keys == sorted(keys) and len(set(keys)) == line["sequences"]


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
    import hashlib
    import json

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
    import json

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
    assert not verify_shards(tmp_path / "packed")
    path = tmp_path / "packed" / name
    whole = path.read_bytes()
    path.unlink()
    assert verify_shards(tmp_path / "packed") == [f"{name} is missing, or was changed since it was packed."]
    # a frame that does not fit its record, in a shard that fits the list
    data = bytearray(whole)
    data[512 + 60] ^= 1
    path.write_bytes(bytes(data))
    listed = (tmp_path / "packed" / "shards.jsonl").read_text()
    old, new = (hashlib.sha256(content).hexdigest() for content in (whole, data))
    (tmp_path / "packed" / "shards.jsonl").write_text(listed.replace(old, new))
    assert any("does not fit its record" in problem for problem in verify_shards(tmp_path / "packed"))
