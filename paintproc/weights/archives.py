"""Takes one file out of a published archive.

Archives from package registries are read from front to back, in pieces. Nothing is unpacked but the one member, which
is written to a path of our own choice.
"""

import bz2
import contextlib
import gzip
import lzma
import stat
import struct
import tarfile
import zipfile
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import BinaryIO

from paintproc.errors import InputError

PIECE = 1 << 20
"""Bytes read, unpacked and written at a time."""
MEMBERS = 200_000
"""Most members of an archive."""
PASSED = 8 << 30
"""Most unpacked bytes of a tar."""
HEADER = 1 << 20
"""Most bytes of one extended tar header."""
EXTENDED = 8
"""Most extended headers of one tar member."""
DICTIONARY = 256 << 20
"""Most bytes of memory for unpacking xz."""

_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_EMPTY = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)


def take_member(archive: Path, member: str, target: Path, *, size: int) -> None:
    """Copy the regular file `member` of `archive` to the new file `target`.

    `archive` is a zip or a tar (plain, gzip, bzip2 or xz), whatever its name. `member` must be in it once, with
    exactly this name and `size` bytes, both by its header and when unpacked. InputError for anything wrong with the
    archive, OSError only from writing `target`. After a failure there is no `target`.
    """
    output = target.open("xb")
    try:
        with output, contextlib.closing(_checked_pieces(archive, member, size)) as pieces:
            for piece in pieces:
                output.write(piece)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _checked_pieces(archive: Path, member: str, size: int) -> Generator[bytes]:
    """The pieces of `member`, `size` bytes together. InputError for anything that goes wrong."""
    _check_name(archive, member)
    done = 0
    try:
        with archive.open("rb") as file:
            for piece in _pieces(file, member, size):
                done += len(piece)
                if done > size:
                    raise _Unfit(f"it unpacks to more than the {size} bytes it was published with")
                yield piece
        if done != size:
            raise _Unfit(f"it unpacks to {done} bytes instead of {size}")
    except Exception as error:
        # Damaged archives make the unpackers raise nearly anything, OSError and MemoryError included.
        reason = str(error)
        if not isinstance(error, _Unfit):
            reason = f"the file is damaged, or no zip or tar ({reason or type(error).__name__})"
        raise InputError(f"{member!r} cannot be taken out of {archive.name}: {reason}.") from error


def _check_name(archive: Path, member: str) -> None:
    parts = PureWindowsPath(member)
    if not parts.parts or parts.drive or parts.root or ".." in parts.parts or "\0" in member:
        raise InputError(f"{member!r} is no name that a file in {archive.name} could have.")


def _pieces(file: BinaryIO, member: str, size: int) -> Iterator[bytes]:
    """The pieces of `member`; the kind of archive is told by its first bytes."""
    start = file.read(6)
    file.seek(0)
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_pieces(file, member, size)
    if start.startswith(b"\x1f\x8b"):
        return _tar_pieces(
            _Stream(iter(partial(gzip.GzipFile(fileobj=file, mode="rb").read, PIECE), b"")), member, size
        )
    if start.startswith(b"BZh"):
        return _tar_pieces(_Stream(iter(partial(bz2.BZ2File(file).read, PIECE), b"")), member, size)
    if start.startswith(b"\xfd7zXZ\0"):
        return _tar_pieces(_Stream(_unpack_xz(file)), member, size)
    return _tar_pieces(_Stream(iter(partial(file.read, PIECE), b"")), member, size)


def _zip_pieces(file: BinaryIO, member: str, size: int) -> Iterator[bytes]:
    with zipfile.ZipFile(file) as bundle:
        if len(bundle.infolist()) > MEMBERS:
            raise _Unfit(f"the archive has more than {MEMBERS} members")
        found = [info for info in bundle.infolist() if info.filename.rstrip("/") == member]
        if len(found) != 1:
            raise _Unfit("it is not in the archive" if not found else "it is in the archive more than once")
        info = found[0]
        kind = stat.S_IFMT(info.external_attr >> 16)
        if info.is_dir() or kind not in (0, stat.S_IFREG) or info.external_attr & 0x10 or info.orig_filename != member:
            raise _Unfit("it is no regular file")
        if info.flag_bits & (0x1 | 0x40 | 0x2000):
            raise _Unfit("it is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _Unfit(f"its compression {info.compress_type} is not supported")
        if info.file_size != size:
            raise _Unfit(f"the archive says it has {info.file_size} bytes instead of {size}")
        _check_apart(file, bundle, info)
        # Ask for one byte more than declared: a stream that is longer is noticed then.
        info.file_size = size + 1
        with bundle.open(info) as stream:
            while piece := stream.read(min(PIECE, info.file_size)):
                yield piece


def _check_apart(file: BinaryIO, bundle: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    """Check that no other member begins inside this one, and that it ends before the directory."""
    file.seek(info.header_offset + 26)
    end = info.header_offset + 30 + sum(struct.unpack("<HH", file.read(4))) + info.compress_size
    others = [other.header_offset for other in bundle.infolist() if other is not info]
    if any(info.header_offset <= offset < end for offset in others) or end > bundle.start_dir:
        raise _Unfit("the archive is damaged (members overlap)")


def _tar_pieces(stream: "_Stream", member: str, size: int) -> Iterator[bytes]:
    """The pieces of `member`. Then the rest of the tar is read, to find a second member of that name, or damage."""
    found = False
    for count, (name, kind, length) in enumerate(_tar_members(stream)):
        if count >= MEMBERS:
            raise _Unfit(f"the archive has more than {MEMBERS} members")
        if name == member:
            if found:
                raise _Unfit("it is in the archive more than once")
            if kind not in _REGULAR:
                raise _Unfit("it is no regular file")
            if length != size:
                raise _Unfit(f"the archive says it has {length} bytes instead of {size}")
            found = True
            yield from stream.pieces(length)
        else:
            stream.skip(length)
        stream.skip(-length % tarfile.BLOCKSIZE)
    stream.drain()
    if not found:
        raise _Unfit("it is not in the archive")


def _tar_members(stream: "_Stream") -> Iterator[tuple[str, bytes, int]]:
    """Name, kind and length of each member. The caller then moves the stream past the padded content."""
    while True:
        extended: dict[str, str] = {}
        for _ in range(EXTENDED):
            header = stream.read(tarfile.BLOCKSIZE)
            if not header.strip(b"\0"):
                return
            info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
            if info.size < 0:
                raise _Unfit("the archive is damaged (a negative size)")
            if info.type == tarfile.XGLTYPE:
                _check_global(_records(_extended_header(stream, info)))
            elif info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
                extended |= _records(_extended_header(stream, info))
            elif info.type == tarfile.GNUTYPE_LONGNAME:
                extended["path"] = _extended_header(stream, info).partition(b"\0")[0].decode("utf-8", "surrogateescape")
            elif info.type == tarfile.GNUTYPE_LONGLINK:
                _extended_header(stream, info)
            elif info.type == tarfile.GNUTYPE_SPARSE:
                raise _Unfit("the archive has sparse members, which are not supported")
            else:
                break
        else:
            raise _Unfit("the archive is damaged (extended headers without a member)")
        name, kind, length = extended.get("path", info.name), info.type, int(extended.get("size", info.size))
        if length < 0:
            raise _Unfit("the archive is damaged (a negative size)")
        if any(key.startswith("GNU.sparse") for key in extended):
            kind = tarfile.GNUTYPE_SPARSE
        yield name.rstrip("/") if kind == tarfile.DIRTYPE else name, kind, 0 if kind in _EMPTY else length


def _extended_header(stream: "_Stream", info: tarfile.TarInfo) -> bytes:
    if info.size > HEADER:
        raise _Unfit(f"the archive is damaged (a header of {info.size} bytes)")
    data = stream.read(info.size)
    stream.skip(-info.size % tarfile.BLOCKSIZE)
    return data


def _records(data: bytes) -> dict[str, str]:
    """The pax records of an extended header; each is `<length> <key>=<value>` and a line feed."""
    records = {}
    while data.strip(b"\0"):
        digits, _, _ = data.partition(b" ")
        length = int(digits) if len(digits) < 8 and digits.isdigit() else 0
        key, equals, value = data[len(digits) + 1 : length - 1].partition(b"=")
        if not equals or data[length - 1 : length] != b"\n":
            raise _Unfit("the archive is damaged (an extended header)")
        records[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        data = data[length:]
    return records


def _check_global(records: dict[str, str]) -> None:
    if any(key in ("path", "size", "linkpath") or key.startswith("GNU.sparse") for key in records):
        raise _Unfit("the archive gives one name or size to all its members")


def _unpack_xz(file: BinaryIO) -> Iterator[bytes]:
    """The unpacked pieces of one or more xz streams. `lzma.open` is not used because it does not limit memory."""
    while start := file.read(PIECE):
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=DICTIONARY)
        yield unpacker.decompress(start, PIECE)
        while not unpacker.eof:
            more = file.read(PIECE) if unpacker.needs_input else b""
            if unpacker.needs_input and not more:
                raise EOFError("it ends in the middle")
            yield unpacker.decompress(more, PIECE)
        file.seek(-len(unpacker.unused_data), 1)


class _Unfit(Exception):
    """A reason, as a clause, why the member cannot be taken."""


class _Stream:
    """Reads exact lengths from an iterator of pieces. At most `PASSED` bytes are read in all."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._source = pieces
        self._rest = memoryview(b"")
        self._passed = 0

    def pieces(self, length: int) -> Iterator[bytes]:
        """The next `length` bytes, in pieces."""
        while length:
            if not self._rest:
                self._fetch()
            piece, self._rest = self._rest[:length], self._rest[length:]
            length -= len(piece)
            yield bytes(piece)

    def read(self, length: int) -> bytes:
        return b"".join(self.pieces(length))

    def skip(self, length: int) -> None:
        for _ in self.pieces(length):
            pass

    def drain(self) -> None:
        """Read to the end, so that the checksum of a compressed stream is checked."""
        for piece in self._source:
            self._count(piece)

    def _fetch(self) -> None:
        piece = next(self._source, None)
        if piece is None:
            raise EOFError("it ends in the middle")
        self._rest = memoryview(piece)
        self._count(piece)

    def _count(self, piece: bytes) -> None:
        self._passed += len(piece)
        if self._passed > PASSED:
            raise _Unfit(f"the archive unpacks to more than {PASSED} bytes")
