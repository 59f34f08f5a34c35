"""Painting time: what a stroke costs, and what stands on the canvas at any moment."""

from collections.abc import Iterable, Iterator

import numpy as np

from paintproc.strokes.rasterize import rasterize
from paintproc.strokes.values import Strokes

EFFORT = 0.03
"""What any stroke costs beside its length, in canvas units: lifting, looking, loading."""
PAINTING_TIME = 3600.0
"""Seconds the whole painting takes."""


def stroke_ends(strokes: Strokes) -> np.ndarray:
    """When each stroke is finished, as a part of painting time [N]: length plus effort."""
    ends = np.cumsum(strokes.lengths().astype(np.float64) + EFFORT)
    return ends / ends[-1] if len(ends) else ends


def stage_at(strokes: Strokes, moment: float) -> str:
    """The stage being painted at a part of painting time; `ground` before the first stroke."""
    if moment <= 0 or len(strokes) == 0:
        return "ground"
    index = min(int(np.searchsorted(stroke_ends(strokes), moment - 1e-9)), len(strokes) - 1)
    return strokes.stages[strokes.stage[index]]


def canvases(strokes: Strokes, size: tuple[int, int], moments: Iterable[float]) -> Iterator[np.ndarray]:
    """The canvas, uint8 [H, W, 3], at each of `moments` (parts of painting time, in order).

    The stroke that is being painted is drawn as far as the brush has come.
    """
    ends = stroke_ends(strokes)
    starts = np.concatenate([[0.0], ends[:-1]]) if len(ends) else ends
    canvas = strokes.ground_canvas(*size)
    done = 0
    for moment in moments:
        finished = int(np.searchsorted(ends, moment + 1e-9, side="right"))
        if finished > done:
            canvas = rasterize(strokes[done:finished], canvas)
            done = finished
        wet = canvas
        if done < len(strokes) and moment > starts[done]:
            part = (moment - starts[done]) / (ends[done] - starts[done])
            wet = rasterize(strokes[done : done + 1], canvas, reveal=np.array([part], np.float32))
        yield to_uint8(wet)


def to_uint8(canvas: np.ndarray) -> np.ndarray:
    """A float canvas in [0, 1] as uint8, rounded."""
    return (np.clip(canvas, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)
