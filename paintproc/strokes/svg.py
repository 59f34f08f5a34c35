"""Strokes as SVG: one path a stroke, in order, grouped by stage and region."""

import base64
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
    order = range(len(strokes))
    for stage, indices in groupby(order, key=lambda i: int(strokes.stage[i])):
        groups.append(f"<g class={quoteattr(strokes.stages[stage].name)}>")
        for region, inner in groupby(indices, key=lambda i: int(strokes.region[i])):
            groups.append(f"<g class={quoteattr(strokes.regions[region])}>")
            for i in inner:
                gradient, path = _stroke(strokes, i, longer_side)
                gradients += gradient
                groups.append(path)
            groups.append("</g>")
        groups.append("</g>")
    return "\n".join([*lines, "<defs>", *gradients, "</defs>", *groups, "</svg>", ""])


def _stroke(strokes: Strokes, i: int, scale: int) -> tuple[list[str], str]:
    """A stroke's gradient definition, if it needs one, and its path."""
    points, radius = strokes.points[i].astype(float) * scale, strokes.radius[i].astype(float) * scale
    color, alpha = strokes.color[i], strokes.alpha[i]
    if np.ptp(points, axis=0).max() < 0.01:
        # a dot is all start: the nearest point of its curve has t = 0 everywhere
        radius, color, alpha = radius[[0, 0]], color[[0, 0]], alpha[[0, 0]]
        points = points[0] + np.array([(0, 0), (0.005, 0), (0.01, 0)])
    paint, opacity, gradient = _color(color[0]), f"{alpha[0]:.3f}", []
    if max(np.abs(color[0] - color[1]).max(), abs(alpha[0] - alpha[1])) * 255 >= 1:
        gradient, paint, opacity = [_gradient(i, points, color, alpha)], f"url(#p{i})", "1"
    if abs(radius[0] - radius[1]) <= EQUAL_RADII * radius.max():
        path = "M{:.2f} {:.2f}Q{:.2f} {:.2f} {:.2f} {:.2f}".format(*points.ravel())
        return gradient, (
            f'<path d="{path}" fill="none" stroke="{paint}" stroke-opacity="{opacity}" '
            f'stroke-width="{2 * radius.mean():.2f}" stroke-linecap="round" stroke-linejoin="round"/>'
        )
    return gradient, f'<path d="{_outline(points, radius)}" fill="{paint}" fill-opacity="{opacity}"/>'


def _gradient(i: int, points: np.ndarray, color: np.ndarray, alpha: np.ndarray) -> str:
    """Start to end as a linear gradient along the chord.

    On a bent stroke the parameter does not grow evenly along the chord: each stop has the mean
    parameter of the curve near it.
    """
    t = np.linspace(0, 1, 17)
    nodes = np.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2], 1) @ points
    chord = points[2] - points[0]
    along = chord / max(float(np.linalg.norm(chord)), 1e-9)
    place = (nodes - points[0]) @ along
    low, high = float(place.min()), float(place.max())
    bent = np.linalg.norm(points[0] - 2 * points[1] + points[2]) > 2
    offsets = np.linspace(0, 1, STOPS if bent and high - low > 0.5 else 2)
    weights = np.exp(-((((place - low) / max(high - low, 1e-9))[None] - offsets[:, None]) ** 2) / 0.12**2)
    parameter = (weights @ t) / weights.sum(1) if len(offsets) > 2 else offsets
    (x0, y0), (x1, y1) = points[0] + low * along, points[0] + high * along
    stops = "".join(
        f'<stop offset="{offset:.3g}" stop-color="{_color((1 - v) * color[0] + v * color[1])}" '
        f'stop-opacity="{(1 - v) * alpha[0] + v * alpha[1]:.3f}"/>'
        for offset, v in zip(offsets, parameter, strict=True)
    )
    return (
        f'<linearGradient id="p{i}" gradientUnits="userSpaceOnUse" '
        f'x1="{x0:.2f}" y1="{y0:.2f}" x2="{x1:.2f}" y2="{y1:.2f}">{stops}</linearGradient>'
    )


def _outline(points: np.ndarray, radius: np.ndarray) -> str:
    """The outline of a disc swept along the curve while its radius changes.

    Both sides and two round caps; where the curve bends so tightly that a side would run
    backwards, the union (by nonzero fill) of discs and the quadrilaterals between them.
    """
    t = np.linspace(0, 1, OUTLINE_NODES + 1)[:, None]
    nodes = (1 - t) ** 2 * points[0] + 2 * t * (1 - t) * points[1] + t**2 * points[2]
    radii = (1 - t) * radius[0] + t * radius[1]
    tangents = (1 - t) * (points[1] - points[0]) + t * (points[2] - points[1])
    lengths = np.linalg.norm(tangents, axis=1, keepdims=True)
    if lengths.min() < 1e-3:
        return _union(nodes, radii[:, 0])
    normals = np.stack([-tangents[:, 1], tangents[:, 0]], 1) / lengths
    left, right = nodes - normals * radii, nodes + normals * radii
    forward = [(np.diff(side, axis=0) * np.diff(nodes, axis=0)).sum(1) for side in (left, right)]
    if min(f.min() for f in forward) <= 0:
        return _union(nodes, radii[:, 0])
    (r0, r1), start, end = radius, left[0], right[-1]
    return (
        f"M{_points(left)}A{r1:.2f} {r1:.2f} 0 0 1 {end[0]:.2f} {end[1]:.2f}"
        f"L{_points(right[::-1][1:])}A{r0:.2f} {r0:.2f} 0 0 1 {start[0]:.2f} {start[1]:.2f}z"
    )


def _union(nodes: np.ndarray, radii: np.ndarray) -> str:
    parts = []
    for (x, y), r in zip(nodes, radii, strict=True):
        parts.append(f"M{x - r:.2f} {y:.2f}a{r:.2f} {r:.2f} 0 1 1 {2 * r:.2f} 0a{r:.2f} {r:.2f} 0 1 1 {-2 * r:.2f} 0z")
    for a, b, ra, rb in zip(nodes[:-1], nodes[1:], radii[:-1], radii[1:], strict=True):
        length = float(np.linalg.norm(b - a))
        if length > 1e-3:
            side = np.array([-(b - a)[1], (b - a)[0]]) / length
            parts.append(f"M{_points(np.array([a - side * ra, b - side * rb, b + side * rb, a + side * ra]))}z")
    return "".join(parts)


def _points(nodes: np.ndarray) -> str:
    return "L".join(f"{x:.2f} {y:.2f}" for x, y in nodes)


def _color(color: np.ndarray) -> str:
    return "#" + "".join(f"{round(float(value) * 255):02x}" for value in color)


def _embedded(canvas: np.ndarray) -> str:
    import cv2

    pixels = np.rint(canvas[..., ::-1] * 255).astype(np.uint8)
    return "data:image/png;base64," + base64.b64encode(cv2.imencode(".png", pixels)[1].tobytes()).decode()


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
