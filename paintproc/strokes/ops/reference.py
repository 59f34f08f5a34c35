"""The rasterizer once more, slowly and plainly: one stroke at a time, over the whole canvas.

It says what the fast kernels compute, and the tests hold them to it. The same lines run on numpy arrays and
on torch tensors; with tensors, autograd finds the true gradients of points, radius, color, alpha, canvas and
atlas. How many segments a curve is cut into has no gradient.
"""

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from paintproc.strokes.ops.kernels import MAX_SEGMENTS, OPAQUE, POINT, SOFTNESS, TOLERANCE
from paintproc.strokes.values import Strokes

Array = Any
"""A numpy array or a torch tensor."""

TINY = 1e-12


def rasterize_slowly(
    strokes: Strokes, canvas: np.ndarray, *, reveal: np.ndarray | None = None, softness: float = SOFTNESS
) -> np.ndarray:
    """The picture of `strokes` over `canvas` [H, W, 3], as float64 [H, W, 3]."""
    reveal = np.ones(len(strokes)) if reveal is None else reveal
    points, radius, color, alpha, canvas = (
        np.asarray(array, np.float64)[None]
        for array in (strokes.points, strokes.radius, strokes.color, strokes.alpha, canvas)
    )
    brush = strokes.brush[None]
    return rasterize(points, radius, color, alpha, brush, canvas, strokes.brushes, reveal[None], softness)[0]


def rasterize(
    points: Array, radius: Array, color: Array, alpha: Array, brush: Array, canvas: Array,
    atlas: Array | Sequence[Array], reveal: Array, softness: float,
) -> Array:  # fmt: skip
    """Pictures [B, H, W, 3]: each canvas with its strokes laid on it, back to front.

    points [B, N, 3, 2] and radius [B, N, 2] in canvas units (1.0 is the longer side of the canvas), color
    [B, N, 2, 3], alpha [B, N, 2]; brush [B, N] counts into `atlas`, brush maps [K, h, w] (or a list of maps);
    canvas [B, H, W, 3]; reveal [B, N] in [0, 1] is the part of each curve drawn so far; softness in pixels.
    Floats are float64.
    """
    library = library_of(canvas)
    side = max(canvas.shape[1:3])
    pictures = []
    for b in range(len(canvas)):
        picture = canvas[b]
        one = library.ones_like(picture[..., 0])
        pixels = library.stack([library.cumsum(one, 1) - 0.5, library.cumsum(one, 0) - 0.5], -1)
        for i in range(points.shape[1]):
            shown = min(1.0, float(reveal[b, i]))
            if shown <= 0:
                continue
            t, distance, lateral = nearest_point(polyline(points[b, i] * side, shown), pixels)
            t = t * shown
            width = lerp(radius[b, i] * side, t)
            across = lateral / library.where(width > TINY, width, TINY)
            coverage = clamp(0.5 - (distance - width) / (2 * softness), 0, 1)
            opacity = lerp(alpha[b, i], t) * coverage * sample_brush(atlas[int(brush[b, i])], t, across)
            opacity = at_most(opacity, float(OPAQUE))[..., None]
            picture = opacity * lerp(color[b, i], t[..., None]) + (1 - opacity) * picture
        pictures.append(picture)
    return library.stack(pictures)


def library_of(array: Array) -> Any:
    """numpy for its arrays, else torch: whoever has a tensor has imported it."""
    return np if isinstance(array, np.ndarray) else sys.modules["torch"]


def fixed(array: Array) -> Array:
    """The values of `array`, without their gradient."""
    return array if isinstance(array, np.ndarray | np.generic) else array.detach()


def lerp(ends: Array, t: Array) -> Array:
    return ends[0] * (1 - t) + ends[1] * t


def clamp(values: Array, low: float, high: float) -> Array:
    """`values` between `low` and `high`; the slope is 0 from the ends on."""
    where = library_of(values).where
    return where(values <= low, float(low), where(values >= high, float(high), values))


def at_most(values: Array, cap: float) -> Array:
    """`values`, `cap` where they are larger; the gradient passes as if there were no cap."""
    over = fixed(values) - cap
    return values - library_of(values).where(over > 0, over, 0.0)


def length(vectors: Array) -> Array:
    """Euclidean length along the last axis; its slope at 0 is 0."""
    library = library_of(vectors)
    square = (vectors**2).sum(-1)
    return library.where(square > 0, library.sqrt(library.where(square > 0, square, 1.0)), 0.0)


def polyline(points: Array, reveal: float) -> list[Array]:
    """Nodes [2] of a quadratic Bezier curve [3, 2] up to parameter `reveal`.

    A chord over a K-th of it lies at most |p0 - 2 p1 + p2| reveal^2 / (4 K^2) from the curve.
    """
    bend = float(length(fixed(points[0] - 2 * points[1] + points[2]))) * reveal**2
    count = min(MAX_SEGMENTS, max(1, math.ceil(math.sqrt(min(bend / (4 * TOLERANCE), 1e9)))))
    places = [reveal * j / count for j in range(count + 1)]
    return [(1 - t) ** 2 * points[0] + 2 * t * (1 - t) * points[1] + t**2 * points[2] for t in places]


def nearest_point(nodes: list[Array], pixels: Array) -> tuple[Array, Array, Array]:
    """For each pixel: place along the polyline in [0, 1], distance, signed lateral offset.

    Of segments equally near, the first counts; a joint belongs to the segment before it.
    """
    library = library_of(pixels)
    count = len(nodes) - 1
    place = best = lateral = pixels[..., 0]
    for j in range(count):
        along = nodes[j + 1] - nodes[j]
        length2 = (along**2).sum()
        if float(fixed(length2)) <= POINT:
            along, length2 = library.zeros_like(along), library.ones_like(length2)
        s = clamp((pixels - nodes[j]) @ along / length2, 0, 1)
        offset = pixels - nodes[j] - s[..., None] * along
        distance = length(offset)
        sideways = (along[0] * offset[..., 1] - along[1] * offset[..., 0]) / library.sqrt(length2)
        closer = (s > 0) & (distance < best) if j else s >= 0
        best = library.where(closer, distance, best)
        place = library.where(closer, (j + s) / count, place)
        lateral = library.where(closer, sideways, lateral)
    return place, best, lateral


def sample_brush(brush: Array, t: Array, across: Array) -> Array:
    """The brush map [h, w] at parameter t in [0, 1] and lateral place in [-1, 1], bilinearly."""
    rows, columns = brush.shape
    u = t * (rows - 1)
    v = (clamp(across, -1, 1) + 1) / 2 * (columns - 1)
    u0, v0 = whole(u), whole(v)
    u1, v1 = (u0 + 1).clip(0, rows - 1), (v0 + 1).clip(0, columns - 1)
    fu, fv = u - u0, v - v0
    upper = brush[u0, v0] * (1 - fv) + brush[u0, v1] * fv
    lower = brush[u1, v0] * (1 - fv) + brush[u1, v1] * fv
    return upper * (1 - fu) + lower * fu


def whole(values: Array) -> Array:
    """`values` rounded down, as integers."""
    down = library_of(values).floor(fixed(values))
    return down.astype(np.int64) if isinstance(down, np.ndarray) else down.long()
