"""Painting time: what a stroke costs, and what stands on the canvas at any moment."""

import itertools
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from paintproc.strokes.rasterize import Drawing
from paintproc.strokes.values import Strokes

EFFORT = 0.03
"""What any stroke costs beside its length, in canvas units: lifting, looking, loading."""
NEW_COLOR = 0.02
"""What it costs to mix another color, where consecutive strokes differ by more than `MIXED`."""
MIXED = 0.12
NEW_PLACE = 0.15
"""What it costs to go on to another region or stage."""
CHANGE_SIDE, CHANGE_STEPS = 128, 32
"""Changes of the canvas are measured at this size, in this many steps a frame."""
VISIBLE = 16
"""Difference, of 255, from which on a changed pixel counts in full."""
COVERED = 0.05
"""Opacity of the paint laid on a pixel from which on the pixel counts as painted."""
STRIP = 64
"""Canvases become uint8 so many rows at a time."""


def stroke_ends(strokes: Strokes) -> np.ndarray:
    """When each stroke is finished, as a part of painting time [N]."""
    costs = strokes.lengths().astype(np.float64) + EFFORT
    if len(costs) > 1:
        jump = np.abs(np.diff(strokes.color.mean(1), axis=0)).max(1)
        costs[1:] += NEW_COLOR * (jump > MIXED)
        costs[1:] += NEW_PLACE * ((np.diff(strokes.region) != 0) | (np.diff(strokes.stage) != 0))
    ends = np.cumsum(costs)
    return ends / ends[-1] if len(ends) else ends


def stage_ends(strokes: Strokes) -> np.ndarray:
    """0, and the moment at which each stage that has strokes is finished."""
    ends = stroke_ends(strokes)
    last = np.flatnonzero(np.diff(strokes.stage, append=-1) != 0)
    return np.concatenate([[0.0], ends[last]])


def even_changes(strokes: Strokes, size: tuple[int, int], count: int) -> np.ndarray:
    """`count` moments from 0 to 1 between which the canvas changes by equal amounts.

    The change of the canvas [H, W] = `size` is the part of its pixels that look different, summed over many
    small steps, so that what is painted over counts too; a pixel counts in full from a difference of
    `VISIBLE` on, since else a few first strokes on a white canvas would outweigh all that follows. A wash
    changes every pixel and says little: all of the ground counts as one step at most. ProcessPainter
    (section 3.3) samples its frames non-uniformly without saying how; this is our reading.
    """
    scale = min(1.0, CHANGE_SIDE / max(size))
    small = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    moments = np.linspace(0, 1, CHANGE_STEPS * (count - 1) + 1)
    shown = canvases(strokes, small, moments)
    changes = np.array([visible_change(before, after) for before, after in itertools.pairwise(shown)])
    # where nothing changes, time goes on all the same
    changes = np.maximum(changes, 1e-6)
    washed = moments[1:] <= _end_of_ground(strokes)
    if count > 2 and washed.any() and not washed.all():
        changes[washed] *= min(1.0, changes[~washed].sum() / (count - 2) / changes[washed].sum())
    amount = np.concatenate([[0.0], np.cumsum(changes)])
    chosen = np.interp(np.linspace(0, amount[-1], count), amount, moments)
    chosen[0], chosen[-1] = 0.0, 1.0
    return chosen


def visible_change(before: np.ndarray, after: np.ndarray) -> float:
    """The part of the pixels, uint8 [H, W, 3], that look different, 0 to 1."""
    difference = cv2.absdiff(before, after).max(2)
    return float(np.minimum(difference, VISIBLE).mean()) / VISIBLE


def _end_of_ground(strokes: Strokes) -> float:
    """The moment at which the last stage with the role "ground" is finished; 0 where there is none."""
    grounds = np.array([stage.role == "ground" for stage in strokes.stages])
    own = np.flatnonzero(grounds[strokes.stage])
    return float(stroke_ends(strokes)[own[-1]]) if len(own) else 0.0


def worked_on(strokes: Strokes, begin: float, end: float) -> dict[tuple[int, int], float]:
    """How long each (stage, region) was painted between two moments, longest first."""
    ends = stroke_ends(strokes)
    starts = np.concatenate([[0.0], ends[:-1]])[: len(ends)]
    spent = np.clip(np.minimum(ends, end) - np.maximum(starts, begin), 0, None)
    found: dict[tuple[int, int], float] = {}
    for i in np.flatnonzero(spent > 0):
        key = int(strokes.stage[i]), int(strokes.region[i])
        found[key] = found.get(key, 0.0) + float(spent[i])
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def canvases(strokes: Strokes, size: tuple[int, int], moments: Iterable[float]) -> Iterator[np.ndarray]:
    """The canvas, uint8 [H, W, 3], at each of `moments` (parts of painting time, in order).

    The stroke that is being painted is drawn as far as the brush has come. Only what changed since
    the moment before is drawn anew.
    """
    ends = stroke_ends(strokes)
    starts = np.concatenate([[0.0], ends[:-1]]) if len(ends) else ends
    drawing = Drawing(strokes, size)
    shown = to_uint8(drawing.canvas)
    for moment in moments:
        finished = int(np.searchsorted(ends, moment + 1e-9, side="right"))
        if finished > drawing.done:
            box = drawing.lay(finished)
            shown[box] = to_uint8(drawing.canvas[box])
        wet = shown
        done = drawing.done
        if done < len(strokes) and moment > starts[done]:
            part = (moment - starts[done]) / (ends[done] - starts[done])
            box, pixels = drawing.preview(part)
            wet = shown.copy()
            wet[box] = to_uint8(pixels)
        yield wet.copy() if wet is shown else wet


def painted_masks(strokes: Strokes, size: tuple[int, int], moments: Iterable[float]) -> Iterator[np.ndarray]:
    """Where paint was laid since the moment before, bool [H, W], at each of `moments`, which are ends of strokes.

    White strokes on a black canvas show the opacity of what was laid; `COVERED` of it counts.
    """
    ends = stroke_ends(strokes)
    drawing = Drawing(replace(strokes, color=np.ones_like(strokes.color)), size)
    for moment in moments:
        mask = np.zeros(size, bool)
        finished = int(np.searchsorted(ends, moment + 1e-9, side="right"))
        if finished > drawing.done:
            drawing.canvas[:] = 0
            box = drawing.lay(finished)
            mask[box] = drawing.canvas[box][..., 0] > COVERED
        yield mask


class DrawnFrames(Sequence[np.ndarray]):
    """The canvases at some moments (parts of painting time, in order), drawn when they are asked for.

    The last frame, and the one asked for last, are kept; a frame before that is drawn from the empty canvas on.
    `last` takes the place of the last frame.
    """

    def __init__(
        self, strokes: Strokes, size: tuple[int, int], moments: np.ndarray, last: np.ndarray | None = None
    ) -> None:
        self.strokes, self.size, self.moments = strokes, size, moments
        self.frame_shape = (*size, 3)
        self.final = len(moments) - 1
        self.kept = {} if last is None else {self.final: last}
        self.lock = threading.Lock()
        self.drawn = 0
        self.stream: Iterator[np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.moments)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[k] for k in range(len(self))[index]]
        index = range(len(self))[index]
        with self.lock:
            if index not in self.kept:
                if self.stream is None or index < self.drawn:
                    self.stream, self.drawn = canvases(self.strokes, self.size, self.moments), 0
                while self.drawn <= index:
                    frame = next(self.stream)
                    self.drawn += 1
                if index == self.final:
                    self.stream = None  # its canvas takes four times the memory of a frame
                self.kept = {k: kept for k, kept in self.kept.items() if k == self.final} | {index: frame}
            return self.kept[index]


def to_uint8(canvas: np.ndarray) -> np.ndarray:
    """A float canvas [H, ...] in [0, 1] as uint8, rounded."""
    shown = np.empty(canvas.shape, np.uint8)
    for y in range(0, len(canvas), STRIP):  # whole, the floats on the way take four times the canvas's memory
        rows = np.clip(canvas[y : y + STRIP], 0, 1)
        rows *= np.float32(255)
        rows += np.float32(0.5)
        shown[y : y + STRIP] = rows
    return shown
