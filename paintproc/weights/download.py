"""Downloads a file of known size and sha256, and goes on where an earlier try was cut.

What has arrived is in a folder of this process's own: the bytes in `data`, and in `version` the ETag or the date that
came with them. When the process has ended, the next one takes the folder over. The server is asked for the rest of that
version only, so a file that has changed is read from its beginning. The sha256 decides at the end.
"""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paintproc.errors import InputError
from paintproc.files import discard, file_digest, take_over
from paintproc.stopping import unfinished
from paintproc.weights.web import PIECE, Site, SourceError, open_url, read_piece, shown

PAUSES = (0.0, 1.0, 4.0)
"""Seconds before asking again after a cut; the count starts anew with every byte that arrives."""

Progress = Callable[[float], None]


def download(
    url: str, target: Path, size: int, sha256: str, site: Site, place: Path, progress: Progress = lambda done: None
) -> None:
    """Write the file of `size` bytes and `sha256` at `url` to `target`.

    `place` is a folder on the same file system, in which unfinished work of earlier processes is looked for. What has
    arrived stays there if the source breaks off or a signal comes. SourceError if the source does not have the whole
    file, InputError if it has another one, OSError only from writing.
    """
    folder = take_over(place / sha256[:16])
    folder.mkdir(exist_ok=True)
    data = folder / "data"
    data.touch()
    # until it is known which version arrives, nothing can go on from it
    unfinished.add(folder)
    try:
        resumed = _read_all(url, folder, size, site, progress)
        digest = file_digest(data)
        if digest != sha256 and resumed:
            # pieces of two versions, or a piece that never reached the disk
            data.write_bytes(b"")
            _read_all(url, folder, size, site, progress)
            digest = file_digest(data)
        if digest != sha256:
            raise InputError(f"{shown(url)} has the sha256 {digest[:12]}..., and the published file {sha256[:12]}...")
        data.replace(target)
    except BaseException as error:
        if isinstance(error, (OSError, InputError)) or not (_length(data) and (folder / "version").exists()):
            discard(folder)
        raise
    finally:
        unfinished.discard(folder)
    discard(folder)


def _read_all(url: str, folder: Path, size: int, site: Site, progress: Progress) -> bool:
    """Read until `data` has `size` bytes. Returns whether a part of them came with an earlier answer.

    SourceError if nothing arrives, or nothing more after the last of `PAUSES`.
    """
    data = folder / "data"
    most, resumed, failures, arrived = _length(data), False, 0, False
    while True:
        reason = None
        try:
            resumed |= _read_on(url, folder, size, site, progress)
        except SourceError as error:
            reason = error
        done = _length(data)
        if done == size:
            return resumed
        if done > most:
            most, failures, arrived = done, 0, True
        if not arrived or failures == len(PAUSES):
            raise reason or SourceError(f"{shown(url)} broke off after {done} of {size} bytes")
        time.sleep(PAUSES[failures])
        failures += 1


def _read_on(url: str, folder: Path, size: int, site: Site, progress: Progress) -> bool:
    """Ask once, for what is missing of `data`, and append it. Returns whether it was appended to something."""
    data, version = folder / "data", folder / "version"
    done = _length(data)
    known = version.read_text(encoding="ascii") if done and version.exists() else ""
    if done == size:
        return True
    headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
    if known:
        headers |= {"Range": f"bytes={done}-", "If-Range": known}
    try:
        answer = open_url(url, site, headers)
    except SourceError as error:
        if known and error.code == 416:
            # the file that is there now has no such part
            version.unlink()
            return _read_on(url, folder, size, site, progress)
        raise
    with answer:
        if known and answer.status == 206 and not _continues(answer.headers, done, known):
            version.unlink()
            return _read_on(url, folder, size, site, progress)
        if not (known and answer.status == 206):
            done = 0
            version.unlink(missing_ok=True)
            data.write_bytes(b"")
            if said := _version(answer.headers):
                version.write_text(said, encoding="ascii")
                unfinished.discard(folder)
        resumed = done > 0
        with data.open("ab") as out:
            # a length that the server states decides nothing: it may be wrong
            while done < size and (piece := read_piece(answer, min(PIECE, size - done), url)):
                done += len(piece)
                out.write(piece)
                out.flush()
                progress(done / size)
    return resumed


def _continues(headers: Any, done: int, known: str) -> bool:
    """Whether an answer with a part of a file begins at `done` and is of the version `known`."""
    begins = re.match(r"bytes (\d+)-", headers.get("Content-Range", ""))
    return begins is not None and int(begins[1]) == done and _version(headers) in ("", known)


def _version(headers: Any) -> str:
    """What tells this version of a file from others: a strong ETag, else the date of its last change, else nothing."""
    said = headers.get("ETag") or headers.get("Last-Modified") or ""
    return said if said.isascii() and said.isprintable() and len(said) < 1000 and not said.startswith("W/") else ""


def _length(data: Path) -> int:
    return data.stat().st_size
