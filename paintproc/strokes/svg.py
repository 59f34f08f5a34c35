"""Strokes as SVG: one path a stroke, in order, grouped by stage and region."""

import base64
import itertools
import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from xml.sax.saxutils import quoteattr

import numpy as np

from paintproc.strokes.values import Strokes

EQUAL_RADII = 0.1
"""Radii that agree within this part of the larger are drawn as a line of one width."""
OUTLINE_NODES = 12
STOPS = 7
"""Gradient stops of a bent stroke; a straight one has two."""


def strokes_to_svg(strokes: Strokes, longer_side: int, comment: str = "") -> str:
    """An SVG document, `longer_side` user units long.

    A stroke whose end radii agree within a tenth is a line with round caps, any other an
    outline. Color and opacity change along the stroke by a gradient from start to end. Brushes
    are not drawn: every stroke is a round one. A ground canvas is embedded as PNG.
    """
    height, width = strokes.canvas_size(longer_side)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        f"<desc>{_escape(comment)}</desc>",
    ]
    if strokes.ground.ndim == 1:
        lines.append(f'<rect id="ground" width="{width}" height="{height}" fill="{_color(strokes.ground)}"/>')
    else:
        lines.append(f'<image id="ground" width="{width}" height="{height}" href="{_embedded(strokes.ground)}"/>')
    gradients, groups = [], []
    shapes = _Shapes(strokes, longer_side)
    order = range(len(strokes))
    for stage, indices in groupby(order, key=lambda i: int(strokes.stage[i])):
        groups.append(f"<g class={quoteattr(strokes.stages[stage].name)}>")
        for region, inner in groupby(indices, key=lambda i: int(strokes.region[i])):
            groups.append(f"<g class={quoteattr(strokes.regions[region])}>")
            for i in inner:
                gradient, path = _stroke(shapes, i)
                gradients += gradient
                groups.append(path)
            groups.append("</g>")
        groups.append("</g>")
    return "\n".join([*lines, "<defs>", *gradients, "</defs>", *groups, "</svg>", ""])


class _Shapes:
    """What the paths and gradients of all strokes are made of, computed at once; lengths in user units.

    radius, color, alpha as in `Strokes`, in float64
    points   [N, 3, 2]  the curve; a dot gets a length that can be drawn
    nodes    [N, n, 2]  of the outline, with their radii [N, n] and both sides, left and right [N, n, 2]
    tight    [N]        whether the curve bends so tightly that a side would run backwards
    start, end [N, 2]   of the gradient, along the chord
    places   [N, STOPS] the mean parameter of the curve near each gradient stop
    """

    def __init__(self, strokes: Strokes, scale: int) -> None:
        self.points, self.radius = strokes.points.astype(float) * scale, strokes.radius.astype(float) * scale
        self.color, self.alpha = strokes.color.astype(float), strokes.alpha.astype(float)
        # a dot is all start: the nearest point of its curve has t = 0 everywhere
        dots = np.ptp(self.points, axis=1).max(1, initial=0) < 0.01
        for ends in (self.radius, self.color, self.alpha):
            ends[dots, 1] = ends[dots, 0]
        self.points[dots] = self.points[dots, :1] + np.array([(0, 0), (0.005, 0), (0.01, 0)])
        self._find_outlines()
        self._find_gradients()

    def _find_outlines(self) -> None:
        t = np.linspace(0, 1, OUTLINE_NODES + 1)
        first, middle, last = (self.points[:, k, None] for k in range(3))
        u, v = 1 - t[:, None], t[:, None]
        self.nodes = u**2 * first + 2 * v * u * middle + v**2 * last
        self.radii = (1 - t) * self.radius[:, :1] + t * self.radius[:, 1:]
        tangents = u * (middle - first) + v * (last - middle)
        lengths = np.linalg.norm(tangents, axis=2, keepdims=True)
        normals = np.stack([-tangents[..., 1], tangents[..., 0]], 2) / np.maximum(lengths, 1e-12)
        self.left, self.right = (self.nodes + sign * normals * self.radii[..., None] for sign in (-1, 1))
        steps = np.diff(self.nodes, axis=1)
        forward = [(np.diff(side, axis=1) * steps).sum(2).min(1) for side in (self.left, self.right)]
        self.tight = (lengths[..., 0].min(1) < 1e-3) | (forward[0] <= 0) | (forward[1] <= 0)

    def _find_gradients(self) -> None:
        t = np.linspace(0, 1, 17)
        weights = np.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2], 1)
        nodes = np.einsum("tk,nkc->ntc", weights, self.points)
        first, chord = self.points[:, 0], self.points[:, 2] - self.points[:, 0]
        along = chord / np.maximum(np.linalg.norm(chord, axis=1, keepdims=True), 1e-9)
        place = ((nodes - first[:, None]) * along[:, None]).sum(2)
        low, high = place.min(1), place.max(1)
        self.start, self.end = (first + value[:, None] * along for value in (low, high))
        bend = np.linalg.norm(self.points[:, 0] - 2 * self.points[:, 1] + self.points[:, 2], axis=1)
        self.bent = (bend > 2) & (high - low > 0.5)
        part = (place - low[:, None]) / np.maximum(high - low, 1e-9)[:, None]
        near = np.exp(-((part[:, None] - np.linspace(0, 1, STOPS)[:, None]) ** 2) / 0.12**2)
        self.places = (near * t).sum(2) / near.sum(2)


def _stroke(shapes: _Shapes, i: int) -> tuple[list[str], str]:
    """A stroke's gradient definition, if it needs one, and its path."""
    radius, color, alpha = shapes.radius[i].tolist(), shapes.color[i].tolist(), shapes.alpha[i].tolist()
    paint, opacity, gradient = _color(color[0]), f"{alpha[0]:.3f}", []
    changes = max(abs(a - b) for a, b in zip([*color[0], alpha[0]], [*color[1], alpha[1]], strict=True))
    if changes * 255 >= 1:
        gradient, paint, opacity = [_gradient(shapes, i, color, alpha)], f"url(#p{i})", "1"
    if abs(radius[0] - radius[1]) <= EQUAL_RADII * max(radius):
        path = "M{:.2f} {:.2f}Q{:.2f} {:.2f} {:.2f} {:.2f}".format(*shapes.points[i].ravel().tolist())
        return gradient, (
            f'<path d="{path}" fill="none" stroke="{paint}" stroke-opacity="{opacity}" '
            f'stroke-width="{radius[0] + radius[1]:.2f}" stroke-linecap="round" stroke-linejoin="round"/>'
        )
    return gradient, f'<path d="{_outline(shapes, i)}" fill="{paint}" fill-opacity="{opacity}"/>'


def _gradient(shapes: _Shapes, i: int, color: list[list[float]], alpha: list[float]) -> str:
    """Start to end as a linear gradient along the chord.

    On a bent stroke the parameter does not grow evenly along the chord: each stop has the mean
    parameter of the curve near it.
    """
    parameters = shapes.places[i].tolist() if shapes.bent[i] else [0.0, 1.0]
    stops = []
    for k, v in enumerate(parameters):
        here = [(1 - v) * a + v * b for a, b in zip(*color, strict=True)]
        stops.append(
            f'<stop offset="{k / (len(parameters) - 1):.3g}" stop-color="{_color(here)}" '
            f'stop-opacity="{(1 - v) * alpha[0] + v * alpha[1]:.3f}"/>'
        )
    (x0, y0), (x1, y1) = shapes.start[i].tolist(), shapes.end[i].tolist()
    return (
        f'<linearGradient id="p{i}" gradientUnits="userSpaceOnUse" '
        f'x1="{x0:.2f}" y1="{y0:.2f}" x2="{x1:.2f}" y2="{y1:.2f}">{"".join(stops)}</linearGradient>'
    )


def _outline(shapes: _Shapes, i: int) -> str:
    """The outline of a disc swept along the curve while its radius changes.

    Both sides and two round caps; where the curve bends so tightly that a side would run
    backwards, the union (by nonzero fill) of discs and the quadrilaterals between them.
    """
    if shapes.tight[i]:
        return _union(shapes.nodes[i].tolist(), shapes.radii[i].tolist())
    (r0, r1), left, right = shapes.radius[i].tolist(), shapes.left[i].tolist(), shapes.right[i].tolist()
    (x0, y0), (x1, y1) = left[0], right[-1]
    return (
        f"M{_points(left)}A{r1:.2f} {r1:.2f} 0 0 1 {x1:.2f} {y1:.2f}"
        f"L{_points(right[-2::-1])}A{r0:.2f} {r0:.2f} 0 0 1 {x0:.2f} {y0:.2f}z"
    )


def _union(nodes: list[list[float]], radii: list[float]) -> str:
    parts = []
    for (x, y), r in zip(nodes, radii, strict=True):
        parts.append(f"M{x - r:.2f} {y:.2f}a{r:.2f} {r:.2f} 0 1 1 {2 * r:.2f} 0a{r:.2f} {r:.2f} 0 1 1 {-2 * r:.2f} 0z")
    for ((ax, ay), ra), ((bx, by), rb) in itertools.pairwise(zip(nodes, radii, strict=True)):
        length = math.hypot(bx - ax, by - ay)
        if length > 1e-3:
            sx, sy = (ay - by) / length, (bx - ax) / length
            corners = [(ax - sx * ra, ay - sy * ra), (bx - sx * rb, by - sy * rb)]
            corners += [(bx + sx * rb, by + sy * rb), (ax + sx * ra, ay + sy * ra)]
            parts.append(f"M{_points(corners)}z")
    return "".join(parts)


def _points(nodes: Iterable[Sequence[float]]) -> str:
    return "L".join([f"{x:.2f} {y:.2f}" for x, y in nodes])


def _color(color: Iterable[float]) -> str:
    return "#" + "".join([f"{round(float(value) * 255):02x}" for value in color])


def _embedded(canvas: np.ndarray) -> str:
    import cv2

    pixels = np.rint(canvas[..., ::-1] * 255).astype(np.uint8)
    return "data:image/png;base64," + base64.b64encode(cv2.imencode(".png", pixels)[1].tobytes()).decode()


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
