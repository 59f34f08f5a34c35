"""Where weights are: `<folder>/<name>/<file>`, or the cache of the model hub. Says what is there, gets it, checks."""

import contextlib
import functools
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from paintproc.errors import InputError, MissingError, UsageError
from paintproc.files import cache_home, file_digest, scratch_folder, whole_file
from paintproc.weights import hub
from paintproc.weights.convert import check_torch, convert, read_header, tensors_digest
from paintproc.weights.manifest import Weight, WeightFile, named
from paintproc.weights.sources import fetch
from paintproc.weights.web import SourceError

State = Literal["here", "unconverted", "damaged", "missing"]
Progress = Callable[[float], None]


def weights_folder(folder: Path | None = None) -> Path:
    """`folder`, else $PAINTPROC_WEIGHTS, else `paintproc/weights` in the user's cache folder."""
    chosen = folder or os.environ.get("PAINTPROC_WEIGHTS")
    try:
        return Path(chosen).expanduser() if chosen else cache_home() / "weights"
    except RuntimeError as error:
        raise UsageError(f"{chosen} cannot be found: {error}", "Name the folder in full.") from error


def place(weight: Weight, folder: Path) -> Path:
    """The folder of these weights: `<folder>/<name>`, or a snapshot in the hub's cache.

    A repository of the hub is in the cache unless somebody put it into the folder, or a file of it is converted.
    """
    own = folder / weight.name
    if weight.hub and not weight.foreign and not _is_folder(own):
        return hub.snapshot(weight) or own
    return own


def state(weight: Weight, folder: Path) -> State:
    """The state of the weights by sizes and headers alone; `verify` reads every byte."""
    where = place(weight, folder)
    states = {_file_state(where, file) for file in weight.files}
    order: tuple[State, ...] = ("damaged", "missing", "unconverted")
    return next((found for found in order if found in states), "here")


def find_weights(name: str, folder: Path | None = None) -> list[Path]:
    """The files of some weights, in the order of the manifest, but for configurations and tokenizers.

    MissingError if one is missing: it names the command that gets it and the place for a file brought by hand.
    InputError if one is damaged.
    """
    weight, folder = named(name), weights_folder(folder)
    found, where = state(weight, folder), place(weight, folder)
    if found == "here":
        return [where / file.stored for file in weight.files if not file.small]
    if found == "damaged":
        bad = next(file for file in weight.files if _file_state(where, file) == "damaged")
        raise InputError(
            f"{where / bad.stored} is damaged, or not the published file.",
            f"Remove it and run `paintproc weights get {name}`.",
        )
    raise missing(weight, folder)


def missing(weight: Weight, folder: Path, without: str = "") -> MissingError:
    """The error about weights that are not in `folder`; `without` says what works without them."""
    where = "" if folder == weights_folder() else f" --weights-dir {shlex.quote(str(folder))}"
    convert_it = f"`paintproc weights convert {weight.name}{where}`"
    what = f"The weights {weight.name} ({weight.title}, {spelled(weight.size)})"
    end = f"; {without}." if without else "."
    if state(weight, folder) == "unconverted":
        return MissingError(f"{what} are in {folder / weight.name} as published.", f"Run {convert_it}{end}")
    files = weight.hub or " and ".join(file.name for file in weight.files)
    by_hand = f"put {files} into {folder / weight.name}"
    if weight.foreign:
        by_hand += f" and run {convert_it}"
    hint = f"Run `paintproc weights get {weight.name}{where}`, or {by_hand}{end}"
    return MissingError(f"{what} are not in {folder}.", hint)


def get(weight: Weight, folder: Path, offline: bool, progress: Progress) -> bool:
    """Bring weights into `folder`, or into the hub's cache. Returns False if they are there already.

    Sources are asked in their order. MissingError if no source has a file, or if what is needed to convert it is not
    installed; InputError if a source gave another file than the published one; that file is removed.
    """
    where = place(weight, folder)
    lacking = [file for file in weight.files if _file_state(where, file) != "here"]
    if not lacking:
        return False
    if any(file.foreign for file in lacking):
        check_torch(weight.name)
    own = folder / weight.name
    steps = [(file, functools.partial(_advance, progress, k, len(lacking))) for k, file in enumerate(lacking)]
    if weight.hub:
        copied = weight.foreign or _is_folder(own)
        for file, advance in steps:
            _get_from_hub(weight, file, folder, copied, offline, advance)
        return True
    try:
        # the scratch folder always has the same stem, so that the next run finds what a dead one left
        with scratch_folder(own / weight.files[0].stored) as scratch:
            for file, advance in steps:
                _get_file(weight, file, folder, scratch, offline, advance)
    finally:
        with contextlib.suppress(OSError):
            # fails, as it should, unless the folder is empty
            own.rmdir()
    return True


def convert_by_hand(weight: Weight, folder: Path, given: Path | None = None) -> None:
    """Convert published files in `<folder>/<name>`, or the file `given`, to safetensors where that is needed.

    MissingError if there are none, InputError if one is not the published file.
    """
    chosen = list(weight.files)
    if given and not _is_file(given):
        raise InputError(f"{given} does not exist, or is no file.")
    if given and len(chosen) > 1:
        digest = _sha256(given)
        chosen = [file for file in weight.files if file.sha256 == digest]
        if not chosen:
            raise InputError(f"{given} is none of the published files of {weight.name}.")
    for file in chosen:
        source = given or folder / weight.name / file.name
        target = folder / weight.name / file.stored
        if not _is_file(source):
            if _file_state(folder / weight.name, file) == "here":
                continue
            raise missing(weight, folder)
        _check_published(file, source)
        if file.foreign or source != target:
            _store(file, source, target)


def verify(weight: Weight, folder: Path) -> None:
    """Read every byte of weights. MissingError or InputError if they are not as published."""
    where = place(weight, folder)
    for file in weight.files:
        path = where / file.stored
        if _file_state(where, file) in ("missing", "unconverted"):
            raise missing(weight, folder)
        if not file.foreign:
            try:
                _check_published(file, path)
            except InputError as error:
                raise InputError(f"{path} is not as published: {error.message}", _get_again(weight.name)) from error
            continue
        said = read_header(path).get("__metadata__", {})
        format_ = said.pop("format", "pt")
        if format_ != "pt" or said != {"published": file.sha256, "tensors": _tensors_in(path)}:
            raise InputError(f"{path} is not what was converted from {file.name}.", _get_again(weight.name))


def spelled(size: int | None) -> str:
    """A size as people write it: 41 MB, 2.6 GB."""
    if size is None:
        return "size not known"
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(1, round(size / 1e6))} MB"


def _file_state(folder: Path, file: WeightFile) -> State:
    """The state of one file, by its size or header."""
    path = folder / file.stored
    if not _is_file(path):
        return "unconverted" if file.foreign and _is_file(folder / file.name) else "missing"
    if not file.foreign:
        return "here" if file.size in (None, path.stat().st_size) else "damaged"
    try:
        said = read_header(path).get("__metadata__", {})
    except InputError:
        return "damaged"
    return "here" if said.get("published") == file.sha256 else "damaged"


def _advance(progress: Progress, done: int, count: int, part: float) -> None:
    progress((done + part) / count)


def _get_file(weight: Weight, file: WeightFile, folder: Path, scratch: Path, offline: bool, progress: Progress) -> None:
    reasons, wrong = [], ""
    published = scratch / Path(file.name).name
    for source in file.sources:
        published.unlink(missing_ok=True)
        try:
            fetch(source, file, published, folder / weight.name, offline, progress)
            _check_published(file, published)
        except SourceError as error:
            reasons.append(str(error))
        except InputError as error:
            wrong = error.message
            reasons.append(wrong.rstrip("."))
        else:
            _store(file, published, folder / weight.name / file.stored, move=True)
            return
    if wrong:
        raise InputError(wrong, "It was refused and removed.")
    raise _not_had(weight, file, folder, "; ".join(reasons))


def _get_from_hub(
    weight: Weight, file: WeightFile, folder: Path, copied: bool, offline: bool, progress: Progress
) -> None:
    """Bring a file into the hub's cache, and from there into the folder if it is `copied` or converted."""
    before = hub.cached(weight, file)
    try:
        found = hub.bring(weight, file, offline, progress)
    except SourceError as error:
        raise _not_had(weight, file, folder, str(error)) from error
    try:
        # the sha256 of large files was checked when they came
        if file.small or file.foreign or before:
            _check_published(file, found)
    except InputError as error:
        if before:
            raise InputError(f"{found} is not as published: {error.message}", _get_again(weight.name)) from error
        for path in {found.resolve(), found}:
            path.unlink()
        raise InputError(error.message, "It was refused and removed.") from error
    if copied:
        _store(file, found, folder / weight.name / file.stored)


def _not_had(weight: Weight, file: WeightFile, folder: Path, reasons: str) -> MissingError:
    text = f"{file.name} of {weight.name} cannot be had: {reasons}."
    return MissingError(text, missing(weight, folder).hint.replace("Run", "Try again with", 1))


def _store(file: WeightFile, published: Path, target: Path, move: bool = False) -> None:
    """Write a published file to its place, converted if needed. With `move` the original may be moved."""
    with scratch_folder(target) as scratch, whole_file(target, replace=True) as part:
        if file.foreign:
            # in a folder of its own: whatever the writer leaves there is removed with it
            convert(published, scratch / target.name, file.sha256 or "")
            (scratch / target.name).rename(part)
        elif move:
            published.rename(part)
        else:
            shutil.copyfile(published, part)


def _check_published(file: WeightFile, path: Path, digest: str | None = None) -> None:
    """InputError if a file is not the published one, by its size and sha256, or by what the hub says of it."""
    size = path.stat().st_size
    if file.size not in (None, size):
        raise InputError(f"{file.name} has {size} bytes, and the published file {file.size}.")
    said = ("sha256", file.sha256) if file.sha256 else hub.published_digest(path)
    if said is None:
        # the commit pins this file, but this copy does not say by which digest
        return
    digest = hub.git_sha1(path) if said[0] == "sha1" else digest or _sha256(path)
    if digest != said[1]:
        raise InputError(f"{file.name} has the {said[0]} {digest[:12]}..., and the published file {said[1][:12]}...")


def _sha256(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}.") from error


def _tensors_in(path: Path) -> str | None:
    """The digest of the tensors in a safetensors file; None if its header is damaged."""
    try:
        return tensors_digest(path)
    except (KeyError, TypeError, ValueError):
        return None


def _is_folder(path: Path) -> bool:
    """Whether this is a folder with something in it."""
    with contextlib.suppress(OSError):
        return any(not entry.name.startswith(".") for entry in path.iterdir())
    return False


def _is_file(path: Path) -> bool:
    """Whether this is a file; False also if its folder may not be entered."""
    try:
        return path.is_file()
    except OSError:
        return False


def _get_again(name: str) -> str:
    return f"Remove it and run `paintproc weights get {name}`."
