"""The sequence folder: what `generate` writes, and how a finished one is recognised."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from paintproc.config.generate import GenerateConfig
from paintproc.errors import OutputError
from paintproc.files import file_digest, plain_errors, whole_folder
from paintproc.media import contact_sheet, label, save_animation, save_png, save_video, shrink_pixels
from paintproc.process.clock import canvases
from paintproc.process.generate import PROVENANCE
from paintproc.sequence import RECORD, PaintingSequence, differences, read_record, write_record
from paintproc.strokes.svg import strokes_to_svg
from paintproc.strokes.values import Strokes, strokes_to_bytes
from paintproc.version import __version__

FILM_SIDE = 1280
"""Longer side of the video in pixels, at most; `paintproc render` makes larger ones."""


def save_sequence(
    sequence: PaintingSequence,
    folder: str | Path,
    config: GenerateConfig | None = None,
    *,
    overwrite: bool = False,
    progress: Callable[[float], None] = lambda done: None,
) -> None:
    """Write a sequence folder, whole or not at all; see docs/sequence-folder.md.

    `config` says which formats, and how long the video is; by default what the sequence was made
    with. OutputError when `folder` holds something else, or cannot be written.
    """
    folder = Path(folder)
    with whole_folder(folder, replace=(lambda: refuse_foreign(folder)) if overwrite else None) as scratch:
        write_sequence(sequence, scratch, config, progress)


def write_sequence(
    sequence: PaintingSequence,
    folder: Path,
    config: GenerateConfig | None = None,
    progress: Callable[[float], None] = lambda done: None,
) -> None:
    """Write the files of a sequence into an existing, empty folder; the record last."""
    config = config or _config_of(sequence)
    comment = _comment(sequence)
    text = {"Software": "paintproc", "Comment": comment}
    digits = max(3, len(str(len(sequence) - 1)))
    frames = [label(frame) for frame in sequence.frames] if config.label else sequence.frames
    names = [f"frames/{k:0{digits}d}.png" for k in range(len(sequence))]
    # compressing leaves a processor to the video, which is drawn and encoded meanwhile
    with ThreadPoolExecutor(1 if "mp4" in config.format else 2) as pool:
        jobs = []
        if "frames" in config.format:
            (folder / "frames").mkdir()
            jobs.append(pool.submit(_save_frames, folder, frames, names, text))
        if "sheet" in config.format:
            jobs.append(pool.submit(_save_sheet, folder, frames, _labels(sequence), text))
        if "svg" in config.format and sequence.strokes is not None:
            jobs.append(pool.submit(_save_svg, folder, sequence.strokes, max(sequence.frames[-1].shape[:2]), comment))
        try:
            _save_strokes(sequence, folder, config, comment, progress)
            _save_pages(sequence, frames, folder, config, comment, text)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        for job in jobs:
            job.result()
    write_record(sequence, folder, names if "frames" in config.format else None)


def _save_frames(folder: Path, frames: Sequence[np.ndarray], names: Sequence[str], text: dict[str, str]) -> None:
    for name, frame in zip(names, frames, strict=True):
        save_png(folder / name, frame, text)


def _save_sheet(folder: Path, frames: Sequence[np.ndarray], labels: list[str], text: dict[str, str]) -> None:
    save_png(folder / "sheet.png", contact_sheet(frames, labels), text)


def _save_svg(folder: Path, strokes: Strokes, side: int, comment: str) -> None:
    (folder / "strokes.svg").write_text(strokes_to_svg(strokes, side, comment), encoding="utf-8", newline="\n")


def _save_pages(
    sequence: PaintingSequence,
    frames: Sequence[np.ndarray],
    folder: Path,
    config: GenerateConfig,
    comment: str,
    text: dict[str, str],
) -> None:
    """Write what shows the whole sequence on a page or as an animation."""
    if "steps" in config.format:
        from paintproc.process.steps import steps_sheet

        save_png(folder / "steps.png", steps_sheet(sequence), text)
    if "html" in config.format:
        from paintproc.process.player import player_page

        page = player_page(sequence, "How it could have been painted")
        (folder / "process.html").write_text(page, encoding="utf-8", newline="\n")
    if "scene" in config.format and sequence.scene is not None and sequence.target is not None:
        from paintproc.scene.picture import scene_picture

        save_png(folder / "scene.png", scene_picture(sequence.target, sequence.scene), text)
    for kind in ("gif", "webp"):
        if kind in config.format:
            save_animation(folder / f"process.{kind}", frames, kind, config.duration, comment)


def film_length(fps: int, duration: float) -> int:
    """Frames of the whole video."""
    return max(2, round(fps * duration))


def film_frames(strokes: Strokes, last: np.ndarray, fps: int, duration: float) -> Iterator[np.ndarray]:
    """The video's frames, of the size of `last`: strokes grow along their path; the last tenth shows `last`."""
    count = film_length(fps, duration)
    moving = min(count - 1, max(1, round(0.9 * count)))
    yield from canvases(strokes, last.shape[:2], np.arange(moving) / moving)
    for _ in range(count - moving):
        yield last


def is_finished(folder: Path, identity: dict[str, Any]) -> bool:
    """Whether `folder` holds this very sequence, with all its files.

    OutputError, naming the first difference, when it holds another one, something foreign, or a
    file that was changed since.
    """
    with plain_errors(folder):
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return False
    record = read_record(folder)
    if record is None:
        raise OutputError(f"{folder} exists already and is not a sequence folder.", "Choose another --output.")
    for key, found, wanted in differences(record, identity):
        way_out = "Choose another --output, or pass --overwrite."
        if key == "scene":
            way_out += " --scene builtin paints as without networks."
        raise OutputError(f"{folder} holds another sequence: its {key} is {found!r}, not {wanted!r}.", way_out)
    missing = [name for name in record["files"] if not (folder / name).is_file()]
    for name, digest in record["files"].items():
        if name not in missing and file_digest(folder / name) != digest:
            raise OutputError(
                f"{folder / name} was changed since it was made.", "Choose another --output, or pass --overwrite."
            )
    return not missing


def refuse_foreign(folder: Path) -> None:
    """OutputError for an existing path that holds anything we did not write."""
    with plain_errors(folder):
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return
        record = read_record(folder)
        if record is None:
            raise OutputError(
                f"{folder} is not a sequence folder; it is never overwritten.", "Choose another --output."
            )
        files = {RECORD, *record["files"]}
        folders = {parent.as_posix() for name in files for parent in Path(name).parents}
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            ours = name in (folders if path.is_dir() else files) and not path.is_symlink()
            if not ours:
                raise OutputError(f"{folder} holds {name}, which is not ours.", "Move it, or choose another --output.")


def _config_of(sequence: PaintingSequence) -> GenerateConfig:
    """The settings a sequence was made with, or the defaults."""
    settings: dict[str, Any] = sequence.info.get("settings", {})
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in settings.items()}
    return GenerateConfig(**values)


def _save_strokes(
    sequence: PaintingSequence, folder: Path, config: GenerateConfig, comment: str, progress: Callable[[float], None]
) -> None:
    """Write the strokes, as data and as what is made from them."""
    strokes = sequence.strokes
    if strokes is None:
        return
    height, width = sequence.frames[0].shape[:2]
    (folder / "strokes.safetensors").write_bytes(strokes_to_bytes(strokes, {"provenance": comment}))
    if "ora" in config.format:
        from paintproc.process.openraster import save_openraster

        save_openraster(folder / "strokes.ora", strokes, (height, width), comment)
    if "mp4" in config.format:
        count = film_length(config.fps, config.duration)
        last = shrink_pixels(sequence.frames[-1], FILM_SIDE)
        film = film_frames(strokes, last, config.fps, config.duration)
        if config.label:
            film = map(label, film)
        save_video(folder / "process.mp4", reported(film, count, progress), count, config.fps, comment)


def _comment(sequence: PaintingSequence) -> str:
    facts = [f"{name} {sequence.info[name]}" for name in ("method", "seed") if name in sequence.info]
    return f"{', '.join([f'paintproc {__version__}', *facts])}; {PROVENANCE}"


def _labels(sequence: PaintingSequence) -> list[str]:
    minutes = [f"{second / 60:.0f} min" for second in sequence.seconds]
    return [f"{time} · {stage}" for time, stage in zip(minutes, sequence.stages, strict=True)]


def reported(frames: Iterable[np.ndarray], count: int, progress: Callable[[float], None]) -> Iterator[np.ndarray]:
    for k, frame in enumerate(frames):
        yield frame
        progress((k + 1) / count)
