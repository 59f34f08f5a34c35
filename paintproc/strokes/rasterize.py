"""`rasterize`: strokes to pixels, with gradients for everything but the order."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from paintproc.strokes.ops.arrays import Brushes, StrokeArrays
from paintproc.strokes.ops.cpu import composite
from paintproc.strokes.ops.kernels import SOFTNESS, TILE
from paintproc.strokes.values import Strokes

MOST_PAIRS = 500_000
"""Pairs of a tile and a stroke that are held at once while drawing: about 50 MB."""


@dataclass(frozen=True, eq=False)
class StrokeGradients:
    """Derivatives of a loss by each array of `Strokes`, in canvas units and its shapes.

    `removal` [N] is how much the loss grows when the stroke is taken away: exact, since the
    picture is linear in each stroke's opacity. The cap of opacity lets gradients through.
    `canvas` [H, W, 3] is the derivative by the canvas, `brushes` those by each brush map, where asked for.
    """

    points: np.ndarray
    radius: np.ndarray
    color: np.ndarray
    alpha: np.ndarray
    removal: np.ndarray
    canvas: np.ndarray
    brushes: tuple[np.ndarray, ...]


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
    at most to 1 - 1/2048. ValueError where shapes do not fit, or where `size` has another shape
    than the strokes' own canvas.
    """
    canvas = _ground(strokes, canvas, size)
    if reveal is not None:
        reveal = np.ascontiguousarray(reveal, np.float32)
        if reveal.shape != (len(strokes),):
            raise ValueError(f"reveal has shape {reveal.shape}, expected {(len(strokes),)}")
        begun = reveal > 0
        strokes, reveal = strokes[begun], np.minimum(reveal[begun], np.float32(1))
    arrays = StrokeArrays.of(strokes, max(canvas.shape[:2]))
    for part in _parts(arrays, canvas.shape[:2]):
        brushes = Brushes.gather(strokes.brush[part], strokes.brushes)
        shown = None if reveal is None else reveal[part]
        canvas = composite(arrays[part], brushes, canvas, reveal=shown, softness=softness).picture
    return canvas


def rasterize_gradients(
    strokes: Strokes,
    canvas: np.ndarray,
    upstream: np.ndarray,
    *,
    softness: float = SOFTNESS,
    brush_gradients: bool = False,
) -> tuple[np.ndarray, StrokeGradients]:
    """The picture, and the gradients of sum(picture * upstream); `upstream` [H, W, 3].

    Those by the brush maps take several times as long as all others; they are found with `brush_gradients`.
    """
    return _with_gradients(strokes, canvas, softness, brush_gradients, upstream=upstream)


def squared_error_gradients(
    strokes: Strokes,
    canvas: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    softness: float = SOFTNESS,
    brush_gradients: bool = False,
) -> tuple[np.ndarray, StrokeGradients]:
    """The picture, and the gradients of 1/2 sum weight (picture - target)^2.

    `target` [H, W, 3] in [0, 1], `weight` [H, W] (default 1). One pass, faster than
    `rasterize` followed by `rasterize_gradients`.
    """
    return _with_gradients(strokes, canvas, softness, brush_gradients, target=target, weight=weight)


def _with_gradients(
    strokes: Strokes, canvas: np.ndarray, softness: float, brush_gradients: bool, **loss: Any
) -> tuple[np.ndarray, StrokeGradients]:
    canvas = _ground(strokes, canvas, None)
    side = max(canvas.shape[:2])
    brushes = Brushes.gather(strokes.brush, strokes.brushes)
    done = composite(
        StrokeArrays.of(strokes, side), brushes, canvas,
        softness=softness, canvas_gradient=True, brush_gradients=brush_gradients, **loss,
    )  # fmt: skip
    found = done.gradients.scale(side)
    maps = strokes.brushes if brush_gradients else ()
    parts = np.split(done.brushes, np.cumsum([brush.size for brush in maps])[:-1]) if maps else []
    return done.picture, StrokeGradients(
        points=found.points.copy(),
        radius=found.radius.copy(),
        color=found.color.copy(),
        alpha=found.alpha.copy(),
        removal=done.removal.copy(),
        canvas=done.canvas,
        brushes=tuple(part.reshape(brush.shape) for part, brush in zip(parts, maps, strict=True)),
    )


Box = tuple[slice, slice]
"""Rows and columns of a canvas."""


class Drawing:
    """Strokes drawn one after the other on one canvas: what `rasterize` gives, for less where few are laid at a time.

    `canvas` float32 [height, width, 3] holds the first `done` strokes.
    """

    def __init__(self, strokes: Strokes, size: tuple[int, int]) -> None:
        self.canvas = _ground(strokes, None, size)
        self.strokes, self.done = strokes, 0
        self.arrays = StrokeArrays.of(strokes, max(size))
        reach = self.arrays.radius.max(1, keepdims=True) + SOFTNESS + 1
        low = np.floor(self.arrays.points.min(1) - reach)
        high = np.ceil(self.arrays.points.max(1) + reach)
        self.boxes = np.concatenate([low, high], 1).clip(0, [size[1], size[0]] * 2).astype(int)

    def lay(self, count: int) -> Box:
        """Lay strokes until there are `count`; returns the box of the canvas that may have changed."""
        begin, self.done = self.done, count
        arrays, brush = self.arrays[begin:count], self.strokes.brush[begin:count]
        for part in _parts(arrays, self.canvas.shape[:2]):
            composite(arrays[part], Brushes.gather(brush[part], self.strokes.brushes), self.canvas, in_place=True)
        return self._box(begin, count)

    def preview(self, reveal: float) -> tuple[Box, np.ndarray]:
        """The next stroke, of which the part `reveal` is drawn: the box it lies in, and the pixels there."""
        here = slice(self.done, self.done + 1)
        box = self._box(self.done, self.done + 1)
        before = self.canvas[box].copy()
        brushes = Brushes.gather(self.strokes.brush[here], self.strokes.brushes)
        shown = np.array([min(1.0, reveal)], np.float32)
        composite(self.arrays[here], brushes, self.canvas, reveal=shown, in_place=True)
        pixels = self.canvas[box].copy()
        self.canvas[box] = before
        return box, pixels

    def _box(self, begin: int, end: int) -> Box:
        left, top = self.boxes[begin:end, :2].min(0)
        right, bottom = self.boxes[begin:end, 2:].max(0)
        return slice(top, bottom), slice(left, right)


def _parts(strokes: StrokeArrays, size: tuple[int, int]) -> list[slice]:
    """Runs of strokes, in pixels, that together touch at most `MOST_PAIRS` tiles: drawn one after the other."""
    height, width = size
    reach = 2 * strokes.radius.max(1, initial=0)[:, None] + np.ptp(strokes.points, axis=1)
    area = np.minimum((reach + TILE) / TILE, 1 + np.array([width, height]) / TILE)
    part = (np.cumsum(area.prod(1).astype(np.float64)) // MOST_PAIRS).astype(int)
    ends = [0, *(np.flatnonzero(np.diff(part)) + 1).tolist(), len(strokes)]
    return [slice(begin, end) for begin, end in itertools.pairwise(ends)]


def _ground(strokes: Strokes, canvas: np.ndarray | None, size: tuple[int, int] | None) -> np.ndarray:
    if canvas is None:
        if size is None:
            raise ValueError("rasterize needs a canvas or a size (height, width)")
        _check_shape(strokes, size)
        return strokes.ground_canvas(*size)
    canvas = np.ascontiguousarray(canvas, np.float32)
    if canvas.ndim != 3 or canvas.shape[2] != 3 or canvas.size == 0:
        raise ValueError(f"a canvas is [height, width, 3], got shape {canvas.shape}")
    if size is not None and tuple(size) != canvas.shape[:2]:
        raise ValueError(f"the canvas is {canvas.shape[:2]} pixels, but size says {size}")
    return canvas


def _check_shape(strokes: Strokes, size: tuple[int, ...]) -> None:
    """ValueError where `size` (height, width) has another shape than the strokes' canvas; sizes may be rounded."""
    height, width = size
    if abs(width - height * strokes.aspect) > 1 + strokes.aspect:
        raise ValueError(f"size is {height, width}; the strokes' canvas has the shape {strokes.canvas_size(max(size))}")
