"""`fit`: paint a target with a given number of strokes, coarse to fine.

Stage by stage, strokes are born where the canvas is still wrong, along the picture's structure, and
all strokes laid so far are optimised together against the target (`optimize.py`). Strokes of finished
stages keep near to the color they had when their stage ended, so that every prefix of the painting
stays a believable canvas.
"""

from collections.abc import Callable, Sequence

import numpy as np

from paintproc.config.plan import PlannedStage
from paintproc.strokes.births import Birthplaces
from paintproc.strokes.optimize import Painting, Settings, Work, optimize_stage, run_paintings
from paintproc.strokes.values import Strokes

LEVELS = (
    PlannedStage("block-in", verb="block in", share=0.10, length=0.080, scale=1 / 8, steps=40, tint=1),
    PlannedStage("development", verb="develop", share=0.30, length=0.030, scale=1 / 2, steps=40, tint=1),
    PlannedStage("detail", verb="work out the details of", share=0.60, length=0.012, scale=1, steps=80, tint=1),
)


def fit(
    target: np.ndarray,
    count: int,
    *,
    canvas: np.ndarray | None = None,
    levels: Sequence[PlannedStage] = LEVELS,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[float], None] = lambda done: None,
) -> Strokes:
    """Paint `target` (sRGB [H, W, 3] in [0, 1]) with `count` strokes.

    `canvas` [H, W, 3] is what is there already; without it the ground is toned in the target's
    mean color. `device` is "cpu" or "cuda". `progress` is called with the part of the work done. Equal arguments
    give equal strokes. ValueError where shapes do not fit.
    """
    return run_paintings([fitting(target, count, canvas, levels, seed, progress)], device)[0]


def fit_batch(
    targets: Sequence[np.ndarray],
    count: int,
    *,
    levels: Sequence[PlannedStage] = LEVELS,
    seed: int = 0,
    device: str = "cpu",
) -> list[Strokes]:
    """`fit` of several pictures, which a GPU paints at once; each as if it were fitted alone."""
    return run_paintings([fitting(target, count, levels=levels, seed=seed) for target in targets], device)


def fitting(
    target: np.ndarray,
    count: int,
    canvas: np.ndarray | None = None,
    levels: Sequence[PlannedStage] = LEVELS,
    seed: int = 0,
    progress: Callable[[float], None] = lambda done: None,
) -> Painting:
    """`fit` as a generator of descents, for `run_paintings`."""
    target = check_target(target, count, canvas)
    ground = target.mean((0, 1)) if canvas is None else np.ascontiguousarray(canvas, np.float32)
    work = Work(target, np.clip(ground, 0, 1), levels, count, seed)
    efforts = np.cumsum([0.0, *(level.steps * level.scale**2 for level in levels)])
    for number, level in enumerate(levels):
        births = work.share(number)
        if births:
            view = work.view(level.scale)
            work.strokes.scale(view.scale)
            places = Birthplaces(view.target, work.draw(view), work.length(number, view))
            work.add(places.draw(births, work.random), number)
            yield from optimize_stage(work, number, view, births, Settings())
            work.strokes.scale(1 / view.scale)
        progress(float(efforts[number + 1] / efforts[-1]))
    return work.finished()


def check_target(target: np.ndarray, count: int, canvas: np.ndarray | None = None) -> np.ndarray:
    """`target` as the kernels read it.

    ValueError unless it is [H, W, 3] in [0, 1], a `canvas` has its shape, and `count` is not negative.
    """
    target = np.ascontiguousarray(target, np.float32)
    if target.ndim != 3 or target.shape[2] != 3 or target.size == 0:
        raise ValueError(f"a target is [height, width, 3], got shape {target.shape}")
    if not (target.min() >= 0 and target.max() <= 1):
        raise ValueError("a target lies in [0, 1]")
    if canvas is not None and canvas.shape != target.shape:
        raise ValueError(f"the canvas is {canvas.shape}, the target {target.shape}")
    if count < 0:
        raise ValueError(f"the number of strokes is negative: {count}")
    return target
