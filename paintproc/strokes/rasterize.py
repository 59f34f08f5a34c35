"""`rasterize`: strokes to pixels, with gradients for everything but the order."""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np

from paintproc.strokes.brushes import ROUND
from paintproc.strokes.ops import kernels
from paintproc.strokes.values import Strokes

Result = TypeVar("Result")

MOST_PAIRS = 4_000_000
"""Pairs of a tile and a stroke that are held at once while drawing: about 400 MB."""
SOFTNESS = 1.0
"""Half the width of a stroke's soft edge, in pixels."""


@dataclass(frozen=True, eq=False)
class StrokeGradients:
    """Derivatives of a loss by each array of `Strokes`, in canvas units and its shapes.

    `removal` [N] is how much the loss grows when the stroke is taken away: exact, since the
    picture is linear in each stroke's opacity. The cap of opacity lets gradients through.
    """

    points: np.ndarray
    radius: np.ndarray
    color: np.ndarray
    alpha: np.ndarray
    removal: np.ndarray


def rasterize(
    strokes: Strokes,
    canvas: np.ndarray | None = None,
    *,
    size: tuple[int, int] | None = None,
    reveal: np.ndarray | None = None,
    softness: float = SOFTNESS,
) -> np.ndarray:
    """Draw `strokes` over `canvas`: float32 sRGB [height, width, 3] in [0, 1].

    Without a canvas the strokes' own ground is used, `size` = (height, width) pixels.
    `reveal` [N] in [0, 1] is the part of each stroke drawn so far, by its curve parameter; a
    stroke at 0 is not drawn. `softness` is half the edge's width in pixels. Strokes are opaque
    at most to 1 - 1/2048. ValueError where shapes do not fit.
    """
    canvas = _ground(strokes, canvas, size)
    if reveal is not None:
        reveal = np.ascontiguousarray(reveal, np.float32)
        if reveal.shape != (len(strokes),):
            raise ValueError(f"reveal has shape {reveal.shape}, expected {(len(strokes),)}")
        begun = reveal > 0
        strokes, reveal = strokes[begun], np.minimum(reveal[begun], np.float32(1))
    rows = pack(strokes, max(canvas.shape[:2]))
    for part in _parts(strokes, canvas.shape[:2]):
        texture = Texture.of(strokes.brush[part], strokes.brushes)
        shown = None if reveal is None else reveal[part]
        canvas = run(rows[part], texture, canvas, reveal=shown, softness=softness)[0]
    return canvas


def rasterize_gradients(
    strokes: Strokes, canvas: np.ndarray, upstream: np.ndarray, *, softness: float = SOFTNESS
) -> tuple[np.ndarray, StrokeGradients]:
    """The picture, and the gradients of sum(picture * upstream); `upstream` [H, W, 3]."""
    canvas = _ground(strokes, canvas, None)
    rows = pack(strokes, max(canvas.shape[:2]))
    picture, total = run(
        rows,
        Texture.of(strokes.brush, strokes.brushes),
        canvas,
        target=upstream,
        mode=kernels.UPSTREAM,
        softness=softness,
    )
    return picture, unpack_gradients(total, max(canvas.shape[:2]))


def squared_error_gradients(
    strokes: Strokes,
    canvas: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    softness: float = SOFTNESS,
) -> tuple[np.ndarray, StrokeGradients]:
    """The picture, and the gradients of 1/2 sum weight (picture - target)^2.

    `target` [H, W, 3] in [0, 1], `weight` [H, W] (default 1). One pass, faster than
    `rasterize` followed by `rasterize_gradients`.
    """
    canvas = _ground(strokes, canvas, None)
    rows = pack(strokes, max(canvas.shape[:2]))
    picture, total = run(
        rows, Texture.of(strokes.brush, strokes.brushes), canvas, target=target, weight=weight,
        mode=kernels.SQUARED_ERROR, softness=softness,
    )  # fmt: skip
    return picture, unpack_gradients(total, max(canvas.shape[:2]))


@dataclass(frozen=True, eq=False)
class Texture:
    """The brushes of some strokes as the kernels read them: one flat array and its shapes."""

    brush_of: np.ndarray
    shapes: np.ndarray
    data: np.ndarray

    @classmethod
    def of(cls, brush_of: np.ndarray, brushes: tuple[np.ndarray, ...] = (ROUND,)) -> "Texture":
        sizes = np.cumsum([0, *(brush.size for brush in brushes)])
        shapes = np.array([(at, *brush.shape) for at, brush in zip(sizes, brushes, strict=False)], np.int32)
        return cls(brush_of, shapes, np.concatenate([brush.ravel() for brush in brushes]))


def pack(strokes: Strokes, longer_side: int) -> np.ndarray:
    """The kernels' rows [N, 16] in pixels; see `kernels`."""
    count = len(strokes)
    rows = np.empty((count, kernels.COLUMNS), np.float32)
    rows[:, :6] = strokes.points.reshape(count, 6) * np.float32(longer_side)
    rows[:, 6:8] = strokes.radius * np.float32(longer_side)
    rows[:, 8:14] = strokes.color.reshape(count, 6)
    rows[:, 14:] = strokes.alpha
    return rows


def unpack(rows: np.ndarray, longer_side: int) -> dict[str, np.ndarray]:
    """Points, radius, color and alpha of `Strokes` from the kernels' rows."""
    count, side = len(rows), np.float32(longer_side)
    return {
        "points": rows[:, :6].reshape(count, 3, 2) / side,
        "radius": rows[:, 6:8] / side,
        "color": rows[:, 8:14].reshape(count, 2, 3),
        "alpha": rows[:, 14:],
    }


def unpack_gradients(total: np.ndarray, longer_side: int) -> StrokeGradients:
    count = len(total)
    return StrokeGradients(
        points=total[:, :6].reshape(count, 3, 2) * np.float32(longer_side),
        radius=total[:, 6:8] * np.float32(longer_side),
        color=total[:, 8:14].reshape(count, 2, 3),
        alpha=total[:, 14:16].copy(),
        removal=total[:, 16].copy(),
    )


def run(
    rows: np.ndarray,
    texture: Texture,
    canvas: np.ndarray,
    *,
    target: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    mode: int = kernels.FORWARD,
    reveal: np.ndarray | None = None,
    softness: float = SOFTNESS,
) -> tuple[np.ndarray, np.ndarray]:
    """The picture and the gradient rows [N, 17] of packed strokes: the inside of the op."""
    height, width = canvas.shape[:2]
    if mode != kernels.FORWARD and (target is None or target.shape != canvas.shape):
        raise ValueError(f"expected a picture of shape {canvas.shape}, got {None if target is None else target.shape}")
    target = canvas if target is None else np.ascontiguousarray(target, np.float32)
    weight = np.zeros((0, 0), np.float32) if weight is None else np.ascontiguousarray(weight, np.float32)
    if weight.size and weight.shape != (height, width):
        raise ValueError(f"weight has shape {weight.shape}, expected {(height, width)}")
    reveal = np.ones(len(rows), np.float32) if reveal is None else reveal
    edge = np.float32(softness)
    nodes, first, start, pairs = sort_strokes(rows, reveal, (height, width), softness)
    picture = np.empty_like(canvas)
    gradients = np.zeros((0 if mode == kernels.FORWARD else len(pairs), kernels.COLUMNS + 1), np.float32)

    def draw(begin: int, end: int) -> None:
        kernels.composite(
            nodes, first, rows, reveal, texture.brush_of, texture.shapes, texture.data, start, pairs,
            canvas, target, weight, edge, mode, begin, end, picture, gradients,
        )  # fmt: skip

    in_parallel(draw, cuts(start, 64))
    return picture, kernels.add_up(gradients, pairs[: len(gradients)], len(rows))


def sort_strokes(
    rows: np.ndarray, reveal: np.ndarray, size: tuple[int, int], softness: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Polylines (nodes, first) of packed strokes, and which of them touch which tile (start, pairs)."""
    edge = np.float32(softness)
    height, width = size
    nodes, first = kernels.flatten(rows, reveal)
    boxes = kernels.bounding_boxes(nodes, first, rows, edge)
    spans = boxes[:, 1::2] - boxes[:, ::2] + np.float32(kernels.TILE)
    ladder = np.concatenate([[0.0], np.cumsum(np.minimum(spans[:, 0] * spans[:, 1], height * width))])

    def find(begin: int, end: int) -> np.ndarray:
        return kernels.find_pairs(nodes, first, rows, reveal, boxes, edge, height, width, begin, end)

    found = np.concatenate(in_parallel(find, cuts(ladder, 1 << 20)))
    tiles = -(-height // kernels.TILE) * -(-width // kernels.TILE)
    return nodes, first, *kernels.sort_by_tile(found, tiles)


def cuts(ladder: np.ndarray, least: int) -> list[int]:
    """Where to cut a row of items into pieces of about as much work, for the threads.

    `ladder` [n + 1] is the work before each item; no more pieces are made than `least` of it each
    allows.
    """
    items, work = len(ladder) - 1, float(ladder[-1])
    pieces = min(3 * thread_count(), int(work / least)) if thread_count() > 1 else 1
    if pieces < 2 or items < 2:
        return [0, items]
    inner = np.searchsorted(ladder, np.linspace(0, work, pieces + 1)[1:-1])
    return [0, *np.unique(np.clip(inner, 1, items - 1)).tolist(), items]


def in_parallel(work: Callable[[int, int], Result], places: list[int]) -> list[Result]:
    """`work(begin, end)` for every piece between `places`, in the drawing threads."""
    pieces = list(itertools.pairwise(places))
    if len(pieces) == 1:
        return [work(*pieces[0])]
    jobs = [pool(os.getpid()).submit(work, *piece) for piece in pieces]
    return [job.result() for job in jobs]


def thread_count() -> int:
    """The processors this process may use, at most `PAINTPROC_THREADS`."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    named = os.environ.get("PAINTPROC_THREADS", "")
    return max(1, min(available, int(named))) if named.isascii() and named.isdigit() else available


@contextlib.contextmanager
def threads_of_workers(workers: int) -> Iterator[None]:
    """Workers that are started here draw each on its part of the processors; the bytes do not depend on it."""
    wanted = {"PAINTPROC_THREADS": str(max(1, thread_count() // workers)), "OPENBLAS_NUM_THREADS": "1"}
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@cache
def pool(process: int) -> ThreadPoolExecutor:
    """The drawing threads of this process (a forked child starts its own)."""
    return ThreadPoolExecutor(thread_count(), thread_name_prefix=f"rasterize-{process}")


def _parts(strokes: Strokes, size: tuple[int, int]) -> list[slice]:
    """Runs of strokes that together touch at most `MOST_PAIRS` tiles: drawn one after the other."""
    height, width = size
    reach = strokes.radius.max(1)[:, None] + np.ptp(strokes.points, axis=1)
    area = np.minimum(
        (2 * reach * max(size) + kernels.TILE) / kernels.TILE, 1 + np.array([width, height]) / kernels.TILE
    )
    part = (np.cumsum(area.prod(1).astype(np.float64)) // MOST_PAIRS).astype(int)
    ends = [0, *(np.flatnonzero(np.diff(part)) + 1).tolist(), len(strokes)]
    return [slice(begin, end) for begin, end in itertools.pairwise(ends)]


def _ground(strokes: Strokes, canvas: np.ndarray | None, size: tuple[int, int] | None) -> np.ndarray:
    if canvas is None:
        if size is None:
            raise ValueError("rasterize needs a canvas or a size (height, width)")
        return strokes.ground_canvas(*size)
    canvas = np.ascontiguousarray(canvas, np.float32)
    if canvas.ndim != 3 or canvas.shape[2] != 3 or canvas.size == 0:
        raise ValueError(f"a canvas is [height, width, 3], got shape {canvas.shape}")
    if size is not None and tuple(size) != canvas.shape[:2]:
        raise ValueError(f"the canvas is {canvas.shape[:2]} pixels, but size says {size}")
    return canvas
