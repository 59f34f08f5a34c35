"""The rasterizer once more, slowly and plainly: numpy, float64, one stroke at a time.

It says what `kernels.py` computes; the tests hold the kernels' values to it and their
gradients to its finite differences.
"""

import math

import numpy as np

from paintproc.strokes.ops.kernels import MAX_SEGMENTS, OPAQUE, POINT, SOFTNESS, TOLERANCE
from paintproc.strokes.values import Strokes


def rasterize_slowly(
    strokes: Strokes, canvas: np.ndarray, *, reveal: np.ndarray | None = None, softness: float = SOFTNESS
) -> np.ndarray:
    """`rasterize`, as float64 [H, W, 3]: back to front, every stroke over the whole canvas."""
    height, width = canvas.shape[:2]
    longer_side = max(height, width)
    canvas = np.array(canvas, np.float64)
    y, x = np.mgrid[:height, :width] + 0.5
    pixels = np.stack([x, y], -1)
    for i in range(len(strokes)):
        shown = 1.0 if reveal is None else float(reveal[i])
        if shown <= 0:
            continue
        points = strokes.points[i].astype(np.float64) * longer_side
        radius = strokes.radius[i].astype(np.float64) * longer_side
        t, distance, lateral = nearest_point(polyline(points, shown), pixels)
        t *= shown
        across = lateral / np.maximum(lerp(radius, t), 1e-12)
        coverage = np.clip(0.5 - (distance - lerp(radius, t)) / (2 * softness), 0, 1)
        brush = sample_brush(strokes.brushes[strokes.brush[i]], t, across)
        opacity = np.minimum(lerp(strokes.alpha[i], t) * coverage * brush, float(OPAQUE))[..., None]
        canvas = opacity * lerp(strokes.color[i], t[..., None]) + (1 - opacity) * canvas
    return canvas


def lerp(ends: np.ndarray, t: np.ndarray) -> np.ndarray:
    return ends[0] * (1 - t) + ends[1] * t


def polyline(points: np.ndarray, reveal: float) -> np.ndarray:
    """Nodes [K + 1, 2] of a quadratic Bezier curve up to parameter `reveal`.

    A chord over a K-th of it lies at most |p0 - 2 p1 + p2| reveal^2 / (4 K^2) from the curve.
    """
    bend = np.linalg.norm(points[0] - 2 * points[1] + points[2]) * reveal**2
    count = min(MAX_SEGMENTS, max(1, math.ceil(math.sqrt(bend / (4 * TOLERANCE)))))
    t = reveal * np.linspace(0, 1, count + 1)[:, None]
    return (1 - t) ** 2 * points[0] + 2 * t * (1 - t) * points[1] + t**2 * points[2]


def nearest_point(nodes: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each pixel: place along the polyline in [0, 1], distance, signed lateral offset."""
    count = len(nodes) - 1
    best = np.full(pixels.shape[:2], np.inf)
    place, lateral = np.zeros_like(best), np.zeros_like(best)
    for j in range(count):
        along = nodes[j + 1] - nodes[j]
        length2 = float(along @ along)
        if length2 <= POINT:
            along, length2 = np.zeros(2), 1.0
        s = np.clip((pixels - nodes[j]) @ along / length2, 0, 1)
        offset = pixels - nodes[j] - s[..., None] * along
        distance = np.linalg.norm(offset, axis=-1)
        closer = distance < best
        best = np.where(closer, distance, best)
        place = np.where(closer, (j + s) / count, place)
        sideways = (along[0] * offset[..., 1] - along[1] * offset[..., 0]) / math.sqrt(length2)
        lateral = np.where(closer, sideways, lateral)
    return place, best, lateral


def sample_brush(brush: np.ndarray, t: np.ndarray, across: np.ndarray) -> np.ndarray:
    """The alpha map at parameter t in [0, 1] and lateral place in [-1, 1], bilinearly."""
    rows, columns = brush.shape
    u = t * (rows - 1)
    v = (np.clip(across, -1, 1) + 1) / 2 * (columns - 1)
    u0, v0 = np.floor(u).astype(int), np.floor(v).astype(int)
    u1, v1 = np.minimum(u0 + 1, rows - 1), np.minimum(v0 + 1, columns - 1)
    fu, fv = u - u0, v - v0
    upper = brush[u0, v0] * (1 - fv) + brush[u0, v1] * fv
    lower = brush[u1, v0] * (1 - fv) + brush[u1, v1] * fv
    return upper * (1 - fu) + lower * fu
