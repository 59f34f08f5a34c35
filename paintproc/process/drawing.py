"""The first strokes: a wash over the blank canvas, and a drawing of the main contours."""

import math
from collections.abc import Sequence

import cv2
import numpy as np

from paintproc.config.plan import PlannedStage, Stage
from paintproc.scene.values import Scene
from paintproc.strokes.births import shrink
from paintproc.strokes.ops.arrays import StrokeArrays

CONTOUR_SIDE = 512
"""Contours are looked for in the picture at this size at most."""
SMOOTHING = 0.008
"""Standard deviation by which contours are smoothed, in canvas units."""
BESIDE = 9
"""Side in pixels of the square within which a contour must have a pixel of the region that is drawn."""
UMBER = np.array([0.62, 0.54, 0.43], np.float32)
"""What the wash leans to: an earth color, as grounds often are."""


def wash(target: np.ndarray, ground: PlannedStage, random: np.random.Generator) -> StrokeArrays:
    """Broad strokes to and fro, top to bottom, in the picture's muted color; in pixels."""
    height, width = target.shape[:2]
    radius = ground.width / 2 * max(height, width)
    count = max(2, int(np.ceil(height / (1.4 * radius))))
    strokes = StrokeArrays.empty(count)
    y = (np.arange(count)[:, None] + 0.5) * height / count + random.normal(0, 0.08 * radius, (count, 3))
    x = np.array([[-radius, width / 2, width + radius], [width + radius, width / 2, -radius]])
    strokes.points[:] = np.stack([x[np.arange(count) % 2], y], 2)
    strokes.radius[:] = radius
    strokes.color[:] = np.clip(wash_color(target) + random.normal(0, 0.006, (count, 1, 1)), 0, 1)
    strokes.alpha[:] = 0.97
    return strokes


def wash_color(target: np.ndarray) -> np.ndarray:
    """The picture's median color, leaning to earth [3]; every other pixel of every other row counts."""
    return (0.75 * np.median(target[::2, ::2].reshape(-1, 3), axis=0) + 0.25 * UMBER).astype(np.float32)


def under_layers(target: np.ndarray, stages: Sequence[Stage], ground: np.ndarray) -> np.ndarray:
    """What lies below the first layer: a begun canvas [H, W, 3], the wash's color [3], or the blank canvas [3]."""
    washed = ground.ndim == 1 and any(stage.role == "ground" for stage in stages)
    return wash_color(target) if washed else ground


def draw_contours(
    target: np.ndarray, scene: Scene, drawing: PlannedStage, count: int
) -> tuple[StrokeArrays, np.ndarray]:
    """At most `count` thin strokes along the main contours, in pixels, and their regions.

    First the regions' borders, then, within them, those borders of parts along which the picture
    changes most. What runs along the frame is left out. Drawn region by region, far to near.
    """
    full = target.shape[1]
    target = shrink(target, CONTOUR_SIDE / max(target.shape[:2]))
    height, width = target.shape[:2]
    regions, parts = (
        cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST) for labels in (scene.regions, scene.parts)
    )
    side = max(height, width)
    gray = cv2.GaussianBlur(target.mean(2), (0, 0), 0.004 * side)
    edges = np.hypot(cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1))
    main, fine = [], []
    for k in range(1, len(scene)):
        pieces = _contour_pieces(regions >= k, regions == k, drawing.length * side)
        main += [(_arc_length(piece), k, piece) for piece in pieces]
    for part in range(int(parts.max()) + 1):
        own = parts == part
        if own.any():
            k = int(regions[own][0])
            for piece in _contour_pieces(own, own & (regions == k), drawing.length * side):
                strength = float(edges[piece[:, 1].astype(int), piece[:, 0].astype(int)].mean())
                fine.append((strength, k, piece))
    chosen = sorted(main, key=lambda item: -item[0])[:count]
    chosen += sorted(fine, key=lambda item: -item[0])[: max(0, count - len(chosen))]
    chosen.sort(key=lambda item: (item[1], item[2][0, 0] + item[2][0, 1]))
    dark = 0.4 * target.reshape(-1, 3).mean(0) * np.array([1.0, 0.9, 0.8], np.float32)
    radius = drawing.width / 2 * side
    strokes = StrokeArrays.empty(len(chosen))
    for i, (_, _, piece) in enumerate(chosen):
        t = np.linspace(0, 1, len(piece))[:, None]
        start, end = piece[0], piece[-1]
        basis = 2 * t * (1 - t)
        middle = (basis * (piece - (1 - t) ** 2 * start - t**2 * end)).sum(0) / (basis**2).sum()
        strokes.points[i] = start, middle, end
    strokes.radius[:] = radius, 0.7 * radius
    strokes.color[:] = dark
    strokes.alpha[:] = 0.85, 0.6
    return strokes.scale(full / width), np.array([k for _, k, _ in chosen], np.int32)


def _arc_length(piece: np.ndarray) -> float:
    return float(np.linalg.norm(np.diff(piece, axis=0), axis=1).sum())


def _contour_pieces(near: np.ndarray, own: np.ndarray, length: float) -> list[np.ndarray]:
    """Runs [n, 2] of the border of `near` beside `own`, each at most `length` pixels long."""
    height, width = near.shape
    sigma = SMOOTHING * max(height, width)
    # what lies farther from `own` than this changes nothing beside it
    left, top, wide, high = cv2.boundingRect(own.astype(np.uint8))
    margin = math.ceil(4 * sigma) + BESIDE
    box = slice(max(0, top - margin), top + high + margin), slice(max(0, left - margin), left + wide + margin)
    corner = np.array([box[1].start, box[0].start])
    smooth = cv2.GaussianBlur(near[box].astype(np.float32), (0, 0), sigma) > 0.5
    beside = cv2.dilate(own[box].astype(np.uint8), np.ones((BESIDE, BESIDE), np.uint8)).astype(bool)
    contours, _ = cv2.findContours(smooth.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    step = max(8, int(length))
    pieces = []
    for contour in contours:
        close = beside[contour[:, 0, 1], contour[:, 0, 0]]
        points = contour[:, 0] + corner
        x, y = points[:, 0], points[:, 1]
        inside = (x > 2) & (y > 2) & (x < width - 3) & (y < height - 3) & close
        runs = np.split(np.arange(len(points)), np.flatnonzero(np.diff(inside.astype(int))) + 1)
        for run in runs:
            if not inside[run[0]] or len(run) < step // 4:
                continue
            for begin in range(0, len(run), step):
                piece = run[begin : begin + step + 2]
                if len(piece) >= max(6, step // 4):
                    pieces.append(points[piece].astype(np.float32))
    return pieces
