"""Sequences in which the regions of a picture are placed on a blank canvas one after the other, by depth.

Nearest first as in ProcessPainter (section 3.3), or farthest first with what lies behind filled in, as
in the amodal baseline of Inverse Painting (supplement, section B.2), pasted or painted with strokes.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np

from paintproc.config.plan import BLANK, Stage
from paintproc.scene.layers import Filler, fill, find_layers
from paintproc.scene.values import Scene
from paintproc.strokes.fit import LEVELS, fit
from paintproc.strokes.ops.arrays import Brushes, StrokeArrays
from paintproc.strokes.ops.in_turn import error_changes, lay_alone
from paintproc.strokes.rasterize import rasterize
from paintproc.strokes.values import Strokes, concatenate

Order = Literal["near-to-far", "far-to-near"]

BEHIND = 0.1
"""How far a region runs on under what is nearer, in canvas units, where the farthest comes first."""
BORDER = 0.01
"""Half the width of the border between regions in which their colors mix, in canvas units."""
SEGMENTS = Stage("segments", verb="paint")
"""The one stage of such a sequence."""
OUTSIDE = 0.3
"""The part of a stroke that may lie outside its segment."""
SPILL = 0.004
"""How far a painted segment may run over its border, in canvas units."""


@dataclass(frozen=True, eq=False)
class Segments:
    """What is placed, in this order: `masks` bool [S, H, W], and the region each belongs to [S]."""

    masks: np.ndarray
    regions: np.ndarray

    def __len__(self) -> int:
        return len(self.masks)


def find_segments(scene: Scene, order: Order, least: int) -> Segments:
    """The scene's regions in order; where these are fewer than `least`, the largest go part by part."""
    pieces: list[tuple[int, np.ndarray]] = [(k, scene.regions == k) for k in range(len(scene))]
    whole = [True] * len(pieces)
    while len(pieces) < least:
        large = [i for i, (k, mask) in enumerate(pieces) if whole[i] and len(np.unique(scene.parts[mask])) > 1]
        if not large:
            break
        i = max(large, key=lambda place: int(pieces[place][1].sum()))
        k, mask = pieces[i]
        # from the top down, as one would fill in a wall
        rows = {
            part: float(np.nonzero(scene.parts == part)[0].mean()) for part in np.unique(scene.parts[mask]).tolist()
        }
        parts = [(k, scene.parts == part) for part in sorted(rows, key=lambda part: rows[part])]
        pieces[i : i + 1], whole[i : i + 1] = parts, [False] * len(parts)
    if order == "near-to-far":
        pieces.reverse()
    return Segments(np.stack([mask for _, mask in pieces]), np.array([k for k, _ in pieces], np.int32))


def paste(
    target: np.ndarray, scene: Scene, segments: Segments, order: Order, filler: Filler = fill
) -> list[np.ndarray]:
    """The blank canvas, and the canvas after each segment: float32 [H, W, 3] of `target` (sRGB in [0, 1])."""
    blank = np.array(BLANK, np.float32)
    canvases = [np.broadcast_to(blank, target.shape).astype(np.float32)]
    layers = find_layers(target, scene, blank, BEHIND, filler) if order == "far-to-near" else []
    placed = np.zeros(target.shape[:2], bool)
    width = 2 * round(BORDER * max(placed.shape)) + 1
    border = np.ones((width, width), np.uint8)
    for number, (mask, region) in enumerate(zip(segments.masks, segments.regions.tolist(), strict=True)):
        placed |= mask
        canvas = canvases[-1].copy()
        last = number + 1 == len(segments) or segments.regions[number + 1] != region
        if layers and last:
            # what lies behind nearer things is made up once its region is whole
            behind = cv2.resize(layers[region], target.shape[1::-1], interpolation=cv2.INTER_LINEAR)
            # pixels at the border hold a bit of the nearer region, until that is there
            sure = cv2.erode(placed.astype(np.uint8), border, borderValue=1).astype(bool)
            canvas = np.where(sure[..., None], target, behind)
        else:
            canvas[placed] = target[placed]
        canvases.append(canvas)
    return canvases


def paint_segments(
    canvases: list[np.ndarray],
    segments: Segments,
    count: int,
    names: tuple[str, ...],
    *,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[float], None] = lambda done: None,
) -> Strokes:
    """Strokes that lead from each of `canvases` to the next, at most `count` in all.

    A segment gets strokes by the root of its area. They are fitted to what it adds alone: beside it the canvas is to
    stay what it is. `device` is "cpu" or "cuda".
    """
    height, width = canvases[0].shape[:2]
    spill = 2 * max(1, round(SPILL * max(height, width))) + 1
    area = np.array([mask.sum() for mask in segments.masks], np.float64)
    shares = np.diff(np.rint(np.cumsum([0, *np.sqrt(area)]) / np.sqrt(area).sum() * count).astype(int))
    canvas, parts = canvases[0], []
    for number, (aim, share) in enumerate(zip(canvases[1:], shares.tolist(), strict=True)):
        own = np.abs(aim - canvases[number]).max(2) > 1 / 512
        own = cv2.dilate(own.astype(np.uint8), np.ones((spill, spill), np.uint8)).astype(bool)
        top, bottom, left, right = _box(own, 32)
        box = slice(top, bottom), slice(left, right)
        wanted = np.where(own[..., None], aim, canvas)
        strokes = _paint_segment(wanted[box], share, canvas[box], own[box], seed + number, device)
        strokes = _moved(strokes, (left, top), (bottom - top, right - left), (height, width))
        facts: dict[str, Any] = {"stages": (SEGMENTS,), "regions": names, "ground": np.array(BLANK, np.float32)}
        facts["stage"] = np.zeros(len(strokes), np.int32)
        facts["region"] = np.full(len(strokes), segments.regions[number], np.int32)
        parts.append(replace(strokes, **facts))
        canvas = rasterize(parts[-1], canvas)
        progress((number + 1) / len(segments))
    return concatenate(parts)


def _paint_segment(
    target: np.ndarray, count: int, canvas: np.ndarray, own: np.ndarray, seed: int, device: str
) -> Strokes:
    """Strokes from `canvas` to `target`, which differ in `own` [H, W] alone.

    Each brings the canvas nearer to the target when it is laid, and lies mostly in `own`: broad strokes that cover
    what is there already, for finer ones to mend, are left out, and as many fine ones take their place.
    """
    target, canvas = np.ascontiguousarray(target), np.ascontiguousarray(canvas)
    strokes = fit(target, count, canvas=canvas, seed=seed, device=device)
    helped = error_changes(strokes, canvas, target[None], np.zeros(len(strokes), np.int32)) < 0
    helped &= share_inside(strokes, own) > 1 - OUTSIDE
    broad = replace(strokes[helped], stage=np.zeros(helped.sum(), np.int32), stages=(SEGMENTS,))
    begun, left = rasterize(broad, canvas), int((~helped).sum())
    fine = fit(target, left, canvas=begun, levels=LEVELS[-1:], seed=seed, device=device)
    return concatenate([broad, replace(fine, stages=(SEGMENTS,))])


def share_inside(strokes: Strokes, mask: np.ndarray) -> np.ndarray:
    """The part of each stroke's paint [N] that lies in `mask` [H, W], of what lies on the canvas.

    White strokes on a black canvas: with opacity a and a mask m as aim the squared error changes by the sum of
    a^2 - 2 a m in every channel, so two aims give the sum of a m.
    """
    arrays = StrokeArrays.of(strokes, max(mask.shape))
    arrays.color[:] = 1
    black = np.zeros((*mask.shape, 3), np.float32)
    white, inside = np.ones_like(black), np.repeat(mask[..., None].astype(np.float32), 3, 2)
    brushes = Brushes.gather(strokes.brush, strokes.brushes)
    squares, all_over, within = (lay_alone(arrays, brushes, black, aim).change for aim in (black, white, inside))
    return (squares - within) / np.maximum(squares - all_over, 1e-6)


def _box(mask: np.ndarray, margin: int) -> tuple[int, int, int, int]:
    """First and last row and column around a mask, with a margin in pixels."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return 0, mask.shape[0], 0, mask.shape[1]
    return (
        max(0, int(rows[0]) - margin),
        min(mask.shape[0], int(rows[-1]) + 1 + margin),
        max(0, int(columns[0]) - margin),
        min(mask.shape[1], int(columns[-1]) + 1 + margin),
    )


def _moved(strokes: Strokes, corner: tuple[int, int], part: tuple[int, int], size: tuple[int, int]) -> Strokes:
    """Strokes on a part of a canvas, at `corner` (x, y) pixels, as strokes on the whole canvas."""
    scale = np.float32(max(part) / max(size))
    points = strokes.points * scale + np.array(corner, np.float32) / np.float32(max(size))
    return replace(strokes, points=points, radius=strokes.radius * scale, aspect=size[1] / size[0])
