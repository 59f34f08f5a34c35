"""The folder of weights, `<folder>/<name>/<file>`: says what is there, gets what is missing, checks it."""

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
from paintproc.weights.convert import convert, read_header, tensors_digest
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


def state(weight: Weight, folder: Path) -> State:
    """The state of the weights in `folder`, by sizes and headers alone; `verify` reads every byte."""
    states = {_file_state(folder / weight.name, file) for file in weight.files}
    order: tuple[State, ...] = ("damaged", "missing", "unconverted")
    return next((found for found in order if found in states), "here")


def find_weights(name: str, folder: Path | None = None) -> list[Path]:
    """The files of some weights, in the order of the manifest.

    MissingError if one is missing: it names the command that gets it and the place for a file brought by hand.
    InputError if one is damaged.
    """
    weight, folder = named(name), weights_folder(folder)
    found = state(weight, folder)
    if found == "here":
        return [folder / name / file.stored for file in weight.files]
    if found == "damaged":
        bad = next(f for f in weight.files if _file_state(folder / name, f) == "damaged")
        raise InputError(
            f"{folder / name / bad.stored} is damaged, or not the published file.",
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
    by_hand = f"put {' and '.join(file.name for file in weight.files)} into {folder / weight.name}"
    if any(file.foreign for file in weight.files):
        by_hand += f" and run {convert_it}"
    hint = f"Run `paintproc weights get {weight.name}{where}`, or {by_hand}{end}"
    return MissingError(f"{what} are not in {folder}.", hint)


def get(weight: Weight, folder: Path, offline: bool, progress: Progress) -> bool:
    """Bring weights into `folder`. Returns False if they are there already.

    Sources are asked in their order. MissingError if no source has a file, InputError if a source gave another file
    than the published one; that file is removed.
    """
    lacking = [file for file in weight.files if _file_state(folder / weight.name, file) != "here"]
    if not lacking:
        return False
    try:
        # the scratch folder always has the same stem, so that the next run finds what a dead one left
        with scratch_folder(folder / weight.name / weight.files[0].stored) as scratch:
            for index, file in enumerate(lacking):
                advance = functools.partial(_advance, progress, index, len(lacking))
                _get_file(weight, file, folder, scratch, offline, advance)
    finally:
        with contextlib.suppress(OSError):
            # fails, as it should, unless the folder is empty
            (folder / weight.name).rmdir()
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
        _check_published(file, source, _sha256(source))
        if file.foreign or source != target:
            _store(file, source, target)


def verify(weight: Weight, folder: Path) -> None:
    """Read every byte of weights. MissingError or InputError if they are not as published."""
    for file in weight.files:
        path = folder / weight.name / file.stored
        if _file_state(folder / weight.name, file) in ("missing", "unconverted"):
            raise missing(weight, folder)
        if not file.foreign:
            try:
                _check_published(file, path, _sha256(path))
            except InputError as error:
                raise InputError(f"{path} is not as published: {error.message}", _get_again(weight.name)) from error
            continue
        said = read_header(path).get("__metadata__", {})
        if said.get("published") != file.sha256 or said.get("tensors") != _tensors_in(path):
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
            _check_published(file, published, fetch(source, published, file.size, offline, progress))
        except SourceError as error:
            reasons.append(str(error))
        except InputError as error:
            wrong = f"{source}: {error.message}"
            reasons.append(wrong.rstrip("."))
        else:
            _store(file, published, folder / weight.name / file.stored, move=True)
            return
    if wrong:
        raise InputError(wrong, "It was refused and removed.")
    text = f"{file.name} of {weight.name} cannot be had: {'; '.join(reasons)}."
    raise MissingError(text, missing(weight, folder).hint.replace("Run", "Try again with", 1))


def _store(file: WeightFile, published: Path, target: Path, move: bool = False) -> None:
    """Write a published file to its place, converted if needed. With `move` the original may be moved."""
    with scratch_folder(target) as scratch, whole_file(target, replace=True) as part:
        if file.foreign:
            # in a folder of its own: whatever the writer leaves there is removed with it
            convert(published, scratch / target.name, file.sha256)
            (scratch / target.name).rename(part)
        elif move:
            published.rename(part)
        else:
            shutil.copyfile(published, part)


def _check_published(file: WeightFile, path: Path, digest: str) -> None:
    size = path.stat().st_size
    if file.size not in (None, size):
        raise InputError(f"{file.name} has {size} bytes, and the published file {file.size}.")
    if digest != file.sha256:
        raise InputError(f"{file.name} has the sha256 {digest[:12]}..., and the published file {file.sha256[:12]}...")


def _sha256(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}.") from error


def _tensors_in(path: Path) -> str | None:
    """The digest of the tensors in a safetensors file; None if they cannot be read."""
    from safetensors.numpy import load_file

    try:
        return tensors_digest(load_file(path))
    except Exception:
        # the reader raises errors of its own class, and others for types that numpy does not have
        return None


def _is_file(path: Path) -> bool:
    """Whether this is a file; False also if its folder may not be entered."""
    try:
        return path.is_file()
    except OSError:
        return False


def _get_again(name: str) -> str:
    return f"Remove it and run `paintproc weights get {name}`."
