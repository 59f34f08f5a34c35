"""Strokes judged at the moment they are laid: the gradient of each one's own error, and what it changed."""

import numpy as np

from paintproc.strokes.ops import kernels
from paintproc.strokes.ops.arrays import Brushes, StrokeArrays
from paintproc.strokes.ops.compiling import kernel
from paintproc.strokes.ops.cpu import find_tiles
from paintproc.strokes.ops.kernels import (
    HALF,
    ONE,
    PIXELS,
    SOFTNESS,
    TILE,
    ZERO,
    fill_plain,
    lay_over,
    look_up_brush,
    nearest,
    slopes_at,
    stroke_gradient,
)
from paintproc.strokes.values import Strokes
from paintproc.threads import divide, in_parallel

FOUND = kernels.COLUMNS + 2
"""Columns of what is found for a stroke: its gradient, the change of error, the sum of squared opacity."""


class LaidStrokes(StrokeArrays):
    """The gradient [N] of each stroke's own error when it is laid, and two numbers more.

    For stroke i this is the derivative of 1/2 sum (canvas after i - aim)^2 by its own parameters:
    the canvas under it counts as given.
    """

    __slots__ = ()

    @property
    def change(self) -> np.ndarray:
        """How much each stroke changed 1/2 sum (canvas - aim)^2 [N]; negative where it helped."""
        return self.packed[:, kernels.COLUMNS]

    @property
    def squared_opacity(self) -> np.ndarray:
        """Sum over pixels of squared opacity [N]: the second derivative by the color of a one-colored stroke."""
        return self.packed[:, kernels.COLUMNS + 1]


def error_changes(strokes: Strokes, canvas: np.ndarray, aims: np.ndarray, aim_of: np.ndarray) -> np.ndarray:
    """The change of squared error by each stroke [N], against its own aim.

    The strokes are laid one by one on `canvas` [H, W, 3]; stroke i is judged over its footprint
    by `aims[aim_of[i]]`, `aims` [A, H, W, 3]. Negative: the stroke helped.
    """
    arrays = StrokeArrays.of(strokes, max(canvas.shape[:2]))
    brushes = Brushes.gather(strokes.brush, strokes.brushes)
    return 2 * lay_in_turn(arrays, brushes, np.ascontiguousarray(canvas, np.float32), aims, aim_of).change


def lay_in_turn(
    strokes: StrokeArrays, brushes: Brushes, canvas: np.ndarray, aims: np.ndarray, aim_of: np.ndarray
) -> LaidStrokes:
    """Lay `strokes`, in pixels, one after the other on `canvas` [H, W, 3].

    Stroke i is judged by `aims[aim_of[i]]`; `aims` [A, H, W, 3]. ValueError where shapes do not fit.
    """
    return _lay(strokes, brushes, canvas, aims, aim_of, False)


def lay_alone(strokes: StrokeArrays, brushes: Brushes, canvas: np.ndarray, aim: np.ndarray) -> LaidStrokes:
    """As `lay_in_turn`, with one aim [H, W, 3]; each stroke is laid on `canvas` as if it were the only one."""
    return _lay(strokes, brushes, canvas, aim[None], np.zeros(len(strokes), np.int32), True)


def _lay(
    strokes: StrokeArrays, brushes: Brushes, canvas: np.ndarray, aims: np.ndarray, aim_of: np.ndarray, alone: bool
) -> LaidStrokes:
    if aims.shape[1:] != canvas.shape or len(aim_of) != len(strokes):
        raise ValueError(
            f"aims {aims.shape} and {len(aim_of)} of them do not fit {len(strokes)} strokes on {canvas.shape}"
        )
    rows = strokes.packed
    reveal = np.ones(len(rows), np.float32)
    nodes, first, start, pairs = find_tiles(rows, reveal, canvas.shape[:2], SOFTNESS)
    found = np.zeros((len(pairs), FOUND), np.float32)
    aims, aim_of = np.ascontiguousarray(aims, np.float32), np.ascontiguousarray(aim_of, np.int32)

    def lay(begin: int, end: int) -> None:
        lay_tiles(
            nodes, first, rows, brushes.of, brushes.shapes, brushes.data, start, pairs, canvas, aims, aim_of,
            np.float32(SOFTNESS), alone, begin, end, found,
        )  # fmt: skip

    in_parallel(lay, divide(start, 64))
    return LaidStrokes(kernels.add_up(found, pairs, len(rows)))


def compile_now() -> None:
    """Compile `lay_tiles`, by a call on one tile without strokes."""
    brushes, canvas = Brushes.round(0), np.zeros((1, 1, 3), np.float32)
    start, none = np.zeros(2, np.int32), np.zeros(0, np.int32)
    nodes, rows, found = (np.zeros((0, columns), np.float32) for columns in (2, kernels.COLUMNS, FOUND))
    lay_tiles(
        nodes, start[:1], rows, brushes.of, brushes.shapes, brushes.data, start, np.zeros((0, 5), np.int32), canvas,
        canvas[None], none, np.float32(SOFTNESS), False, 0, 1, found,
    )  # fmt: skip


@kernel
def lay_tiles(  # type: ignore[no-untyped-def]
    nodes, first, rows, brush_of, brush_shapes, brush_data, start, pairs, canvas, aims, aim_of, softness,
    alone, tile_begin, tile_end, found,
):  # fmt: skip
    """Back to front, tile by tile; the gradient is the rasterizer's, of one stroke over a canvas.

    `alone`: every stroke lies on the canvas as it was before all of them.
    """
    height, width = canvas.shape[0], canvas.shape[1]
    across = (width + TILE - 1) // TILE
    inverse_width = HALF / softness
    x, y, light = np.empty(PIXELS, np.float32), np.empty(PIXELS, np.float32), np.empty(PIXELS, np.float32)
    distance2, position = np.empty((1, PIXELS), np.float32), np.empty((1, PIXELS), np.float32)
    dx, dy = np.empty((1, PIXELS), np.float32), np.empty((1, PIXELS), np.float32)
    brush, slope = np.empty((3, PIXELS), np.float32), np.empty((2, PIXELS), np.float32)
    red, green, blue = np.empty(PIXELS, np.float32), np.empty(PIXELS, np.float32), np.empty(PIXELS, np.float32)
    gx, gy, gz = np.empty(PIXELS, np.float32), np.empty(PIXELS, np.float32), np.empty(PIXELS, np.float32)
    now_red, now_green = np.empty(PIXELS, np.float32), np.empty(PIXELS, np.float32)
    now_blue, counts = np.empty(PIXELS, np.float32), np.empty(PIXELS, np.float32)
    aim_red, aim_green = np.empty(PIXELS, np.float32), np.empty(PIXELS, np.float32)
    aim_blue = np.empty(PIXELS, np.float32)
    plain = False
    for tile in range(tile_begin, tile_end):
        top, left = (tile // across) * TILE, (tile % across) * TILE
        if start[tile] == start[tile + 1]:
            continue
        shown = -1
        for p in range(PIXELS):
            r, c = top + p // TILE, left + p % TILE
            x[p], y[p] = np.float32(c) + HALF, np.float32(r) + HALF
            counts[p] = ONE if r < height and c < width else ZERO
            r, c = min(height - 1, r), min(width - 1, c)
            now_red[p], now_green[p], now_blue[p] = canvas[r, c, 0], canvas[r, c, 1], canvas[r, c, 2]
        for e in range(start[tile], start[tile + 1]):
            i, p0, p1 = pairs[e, 0], np.uint64(pairs[e, 3]), np.uint64(pairs[e, 4])
            if aim_of[i] != shown:
                shown = aim_of[i]
                for p in range(PIXELS):
                    r, c = min(height - 1, top + p // TILE), min(width - 1, left + p % TILE)
                    aim_red[p], aim_green[p], aim_blue[p] = (
                        aims[shown, r, c, 0],
                        aims[shown, r, c, 1],
                        aims[shown, r, c, 2],
                    )
            nearest(nodes, first[i], pairs[e, 1], pairs[e, 2], x, y, p0, p1, 0, distance2, position, dx, dy)
            slopes_at(nodes, first[i], pairs[e, 1], pairs[e, 2], p0, p1, 0, position, slope)
            h = ONE / np.float32(first[i + 1] - first[i] - 1)
            shape = brush_shapes[brush_of[i]]
            textured = shape[3] == 0
            if not textured and not plain:
                fill_plain(brush)
            plain = not textured
            if textured:
                look_up_brush(brush_data, shape, rows[i], h, p0, p1, 0, position, dx, dy, slope, brush)
            for p in range(p0, p1):
                light[p] = ONE
                red[p] = green[p] = blue[p] = ZERO
            lay_over(rows[i], h, p0, p1, 0, inverse_width, distance2, position, brush, red, green, blue, light)
            change = ZERO
            for p in range(p0, p1):
                red[p] += light[p] * now_red[p]
                green[p] += light[p] * now_green[p]
                blue[p] += light[p] * now_blue[p]
                d0, d1, d2 = red[p] - aim_red[p], green[p] - aim_green[p], blue[p] - aim_blue[p]
                b0, b1, b2 = now_red[p] - aim_red[p], now_green[p] - aim_green[p], now_blue[p] - aim_blue[p]
                change += counts[p] * (d0 * d0 + d1 * d1 + d2 * d2 - b0 * b0 - b1 * b1 - b2 * b2)
                gx[p] = counts[p] * d0
                gy[p] = counts[p] * d1
                gz[p] = counts[p] * d2
            squares = ZERO
            for p in range(p0, p1):
                squares += counts[p] * (ONE - light[p]) * (ONE - light[p])
                light[p] = ONE
            if not alone:
                for p in range(p0, p1):
                    now_red[p] = red[p]
                    now_green[p] = green[p]
                    now_blue[p] = blue[p]
            if textured:
                stroke_gradient(
                    True, rows[i], h, p0, p1, 0, inverse_width, distance2, position, dx, dy, slope,
                    brush, red, green, blue, light, gx, gy, gz, counts, found[e],
                )  # fmt: skip
            else:
                stroke_gradient(
                    False, rows[i], h, p0, p1, 0, inverse_width, distance2, position, dx, dy, slope,
                    brush, red, green, blue, light, gx, gy, gz, counts, found[e],
                )  # fmt: skip
            found[e, 16], found[e, 17] = HALF * change, squares
