"""Strokes drawn again: as a picture, a drawing or a video."""

from collections.abc import Callable
from pathlib import Path

from paintproc.config.render import RenderConfig
from paintproc.media import save_png, save_video
from paintproc.process.clock import to_uint8
from paintproc.process.folder import film_frames, film_length, reported
from paintproc.process.generate import PROVENANCE
from paintproc.strokes.rasterize import rasterize
from paintproc.strokes.svg import strokes_to_svg
from paintproc.strokes.values import Strokes
from paintproc.version import __version__


def render(
    strokes: Strokes,
    path: Path,
    kind: str,
    config: RenderConfig,
    progress: Callable[[float], None] = lambda done: None,
) -> None:
    """Write `strokes` to `path` as `.png`, `.svg` or `.mp4`."""
    comment = f"paintproc {__version__}; {PROVENANCE}"
    if kind == ".svg":
        path.write_text(strokes_to_svg(strokes, config.size, comment), encoding="utf-8", newline="\n")
        return
    last = to_uint8(rasterize(strokes, size=strokes.canvas_size(config.size)))
    if kind == ".png":
        save_png(path, last, {"Software": "paintproc", "Comment": comment})
        return
    count = film_length(config.fps, config.duration)
    film = film_frames(strokes, last, config.fps, config.duration)
    save_video(path, reported(film, count, progress), count, config.fps, comment)
