"""`fit`: paint a target with a given number of strokes, coarse to fine.

Level by level, strokes are born where the canvas is still wrong, along the picture's
structure, and all strokes laid so far are optimised together against the target. Within a
level the strokes that matter least are taken away and born again where the error is. Strokes
of finished levels keep near to the color they had when their level ended, so that every
prefix of the painting stays a believable canvas.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from paintproc.strokes.ops import kernels
from paintproc.strokes.ops.compiling import kernel
from paintproc.strokes.rasterize import Texture, run, unpack
from paintproc.strokes.values import Strokes


@dataclass(frozen=True)
class Level:
    """One pass over the picture, with strokes of about one size."""

    stage: str
    share: float
    """Part of all strokes."""
    length: float
    """Typical half length of a stroke in canvas units, up to `LENGTH_COUNT` strokes in all; its
    radius is about half of it."""
    scale: float
    """Resolution of the optimisation, relative to the target's."""
    steps: int
    """Optimizer steps."""


LEVELS = (
    Level("block-in", share=0.10, length=0.080, scale=1 / 8, steps=40),
    Level("development", share=0.30, length=0.030, scale=1 / 2, steps=40),
    Level("detail", share=0.60, length=0.012, scale=1, steps=80),
)

LENGTH_COUNT = 500
"""With more strokes than this they become shorter and thinner, by the fourth root."""
REBIRTHS = (0.2, 0.4, 0.6)
"""When strokes are born again, as parts of a level's steps."""
REBORN = 0.2
"""How many of a level's strokes each time."""
REBORN_LENGTH = 0.7
"""Their size against the level's."""
MOVE = 0.2
"""Optimizer step for points against the level's stroke length; half of it for radii."""
TINT = 0.02
"""Optimizer step for color and opacity."""
SETTLE = (0.6, 0.4)
"""After this part of a level the steps shrink to this factor."""
DRIED_MOVE = 0.4
"""Factor on the steps of a stroke for every level that came after its own."""
DRIED_TINT = 0.1
"""How far a color may stray from what it was when its level ended."""
MOMENTS = (np.float32(0.8), np.float32(0.9))
"""Decay of Adam's two running means."""
ALPHA = (0.6, 0.98)
"""Range of opacity: paint covers, and one layer is never quite opaque."""
SMALLEST_RADIUS = 0.6
"""In pixels of the target."""
LARGEST_RADIUS = 0.25
"""In canvas units."""
SMALLEST_SIDE = 24
"""Levels are not optimised on pictures smaller than this."""


def fit(
    target: np.ndarray,
    count: int,
    *,
    canvas: np.ndarray | None = None,
    levels: Sequence[Level] = LEVELS,
    seed: int = 0,
    progress: Callable[[float], None] = lambda done: None,
) -> Strokes:
    """Paint `target` (sRGB [H, W, 3] in [0, 1]) with `count` strokes.

    `canvas` [H, W, 3] is what is there already; without it the ground is toned in the target's
    mean color. `progress` is called with the part of the work done. Equal arguments give equal
    strokes. ValueError where shapes do not fit.
    """
    target = check_target(target, count)
    if canvas is not None and canvas.shape != target.shape:
        raise ValueError(f"the canvas is {canvas.shape}, the target {target.shape}")
    ground = target.mean((0, 1)) if canvas is None else np.ascontiguousarray(canvas, np.float32)
    ground = np.clip(ground, 0, 1)
    random = np.random.Generator(np.random.Philox(seed))
    painter = _Painter(target, ground, random)
    shares = np.cumsum([0.0, *(level.share for level in levels)])
    births = np.diff(np.rint(shares / shares[-1] * count).astype(int))
    shorter = min(1.0, (LENGTH_COUNT / max(count, 1)) ** 0.25)
    levels = [replace(level, length=level.length * shorter) for level in levels]
    works = [level.steps * level.scale for level in levels]
    for k, level in enumerate(levels):
        before, here = sum(works[:k]) / sum(works), works[k] / sum(works)

        def advance(done: float, before: float = before, here: float = here) -> None:
            progress(before + here * done)

        painter.paint_level(k, level, int(births[k]), advance)
    return painter.strokes(tuple(level.stage for level in levels))


def check_target(target: np.ndarray, count: int) -> np.ndarray:
    """`target` as the kernels read it. ValueError unless it is [H, W, 3] in [0, 1] and `count` is not negative."""
    target = np.ascontiguousarray(target, np.float32)
    if target.ndim != 3 or target.shape[2] != 3 or target.size == 0:
        raise ValueError(f"a target is [height, width, 3], got shape {target.shape}")
    if not (target.min() >= 0 and target.max() <= 1):
        raise ValueError("a target lies in [0, 1]")
    if count < 0:
        raise ValueError(f"the number of strokes is negative: {count}")
    return target


class _Painter:
    """The strokes so far: the kernels' rows in pixels of the target, and their levels."""

    def __init__(self, target: np.ndarray, ground: np.ndarray, random: np.random.Generator) -> None:
        self.target, self.ground, self.random = target, ground, random
        self.longer_side = max(target.shape[:2])
        self.rows = np.zeros((0, kernels.COLUMNS), np.float32)
        self.level = np.zeros(0, np.int32)
        self.dried_color = np.zeros((0, 6), np.float32)

    def paint_level(self, number: int, level: Level, births: int, progress: Callable[[float], None]) -> None:
        """Give birth to a level's strokes and optimise all strokes together."""
        if births == 0:
            return
        scale = min(1.0, max(level.scale, SMALLEST_SIDE / self.longer_side))
        target = shrink(self.target, scale)
        ground = self.ground if self.ground.ndim == 1 else shrink(self.ground, scale)
        scale = target.shape[1] / self.target.shape[1] if scale < 1 else 1.0
        canvas = np.ascontiguousarray(np.broadcast_to(ground, target.shape), np.float32)
        length = level.length * max(target.shape[:2])
        self.rows[:, :8] *= np.float32(scale)
        picture = draw(self.rows, canvas)
        self.add(seed_strokes(target, picture, births, length, self.random), number)
        state = Adam(len(self.rows))
        limits = self.limits(number, length, scale)
        rebirths = {round(level.steps * part) for part in REBIRTHS} - {0}
        for step in range(level.steps):
            texture = round_brush(self.rows)
            picture, gradients = run(self.rows, texture, canvas, target=target, mode=kernels.SQUARED_ERROR)
            if step in rebirths:
                self.give_rebirth(number, births, gradients[:, 16], state, target, picture, length)
                limits = self.limits(number, length, scale)
                continue
            settle = 1.0 if step < SETTLE[0] * level.steps else SETTLE[1]
            state.step(self.rows, gradients, settle, *limits)
            progress((step + 1) / level.steps)
        self.rows[:, :8] /= np.float32(scale)
        now = self.level == number
        self.dried_color[now] = self.rows[now, 8:14]

    def add(self, rows: np.ndarray, number: int) -> None:
        self.rows = np.concatenate([self.rows, rows])
        self.level = np.concatenate([self.level, np.full(len(rows), number, np.int32)])
        self.dried_color = np.concatenate([self.dried_color, rows[:, 8:14]])

    def give_rebirth(
        self, number: int, births: int, removal: np.ndarray, state: "Adam",
        target: np.ndarray, picture: np.ndarray, length: float,
    ) -> None:  # fmt: skip
        """Take away the strokes whose loss costs least, of any level, and lay new ones on top."""
        dead = np.argsort(removal, kind="stable")[: int(births * REBORN)]
        keep = np.setdiff1d(np.arange(len(self.rows)), dead)
        self.rows, self.level, self.dried_color = self.rows[keep], self.level[keep], self.dried_color[keep]
        self.add(seed_strokes(target, picture, len(dead), length * REBORN_LENGTH, self.random), number)
        state.keep(keep, len(dead))

    def limits(self, number: int, length: float, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Step size, lower and upper bound of every parameter [N, 16]."""
        shape = self.rows.shape
        side = self.longer_side * scale
        move = length * MOVE * DRIED_MOVE ** (number - self.level[:, None]).astype(np.float32)
        rate, low, high = (np.empty(shape, np.float32) for _ in range(3))
        rate[:, :6], rate[:, 6:8], rate[:, 8:] = move, move / 2, TINT
        low[:, :6], high[:, :6] = -side, 2 * side
        low[:, 6:8], high[:, 6:8] = SMALLEST_RADIUS * scale, max(SMALLEST_RADIUS, LARGEST_RADIUS * side)
        low[:, 8:14], high[:, 8:14] = 0, 1
        dried = self.level < number
        low[dried, 8:14] = np.maximum(0, self.dried_color[dried] - DRIED_TINT)
        high[dried, 8:14] = np.minimum(1, self.dried_color[dried] + DRIED_TINT)
        low[:, 14:], high[:, 14:] = ALPHA
        return rate, low, high

    def strokes(self, stages: tuple[str, ...]) -> Strokes:
        height, width = self.target.shape[:2]
        arrays: dict[str, Any] = unpack(self.rows, self.longer_side)
        return Strokes(
            **arrays,
            stage=self.level,
            stages=stages,
            ground=self.ground,
            aspect=width / height,
        )


class Adam:
    """Adam (Kingma and Ba 2015, algorithm 1) within bounds; strokes may be born at any step."""

    def __init__(self, count: int) -> None:
        self.mean = np.zeros((count, kernels.COLUMNS), np.float32)
        self.square = np.zeros((count, kernels.COLUMNS), np.float32)
        self.age = np.zeros(count, np.int32)

    def keep(self, survivors: np.ndarray, births: int) -> None:
        fresh = np.zeros((births, kernels.COLUMNS), np.float32)
        self.mean = np.concatenate([self.mean[survivors], fresh])
        self.square = np.concatenate([self.square[survivors], fresh])
        self.age = np.concatenate([self.age[survivors], np.zeros(births, np.int32)])

    def step(
        self,
        rows: np.ndarray,
        gradients: np.ndarray,
        factor: float,
        rate: np.ndarray,
        low: np.ndarray,
        high: np.ndarray,
    ) -> None:
        """Move `rows` in place; `factor` scales all steps."""
        self.age += 1
        correction = [(1 - moment ** self.age.astype(np.float32)).astype(np.float32) for moment in MOMENTS]
        scale = np.stack([np.float32(factor) / correction[0], 1 / correction[1]], 1)
        adam_step(rows, gradients, self.mean, self.square, scale, rate, low, high, *MOMENTS)


@kernel
def adam_step(rows, gradients, mean, square, scale, rate, low, high, moment1, moment2):  # type: ignore[no-untyped-def]
    one = np.float32(1)
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            slope = gradients[i, j]
            mean[i, j] = moment1 * mean[i, j] + (one - moment1) * slope
            square[i, j] = moment2 * square[i, j] + (one - moment2) * slope * slope
            push = mean[i, j] * scale[i, 0] / (np.sqrt(square[i, j] * scale[i, 1]) + np.float32(1e-10))
            rows[i, j] = min(high[i, j], max(low[i, j], rows[i, j] - rate[i, j] * push))


def seed_strokes(
    target: np.ndarray,
    picture: np.ndarray,
    count: int,
    length: float,
    random: np.random.Generator,
    where: np.ndarray | None = None,
) -> np.ndarray:
    """New strokes as kernel rows [count, 16]: where `picture` misses `target`, along its edges.

    Places are drawn with the square of the blurred error as density, times `where` [H, W]; the
    direction is the minor axis of the structure tensor; the color is the blurred target's.
    """
    coarser = min(1.0, 4 / length)
    small, now = shrink(target, coarser), shrink(picture, coarser)
    height, width = small.shape[:2]
    ratio = np.array([target.shape[1] / width, target.shape[0] / height])
    size = length * width / target.shape[1]
    density = (
        blur(cv2.transform(np.abs(small - now), np.ones((1, 3), np.float32)), size / 2).astype(np.float64) ** 2 + 1e-12
    )
    if where is not None:
        density *= np.maximum(shrink(np.ascontiguousarray(where, np.float32), coarser), 1e-9)
    ladder = np.cumsum(density.ravel())
    drawn = np.searchsorted(ladder, random.random(count) * ladder[-1]).clip(0, ladder.size - 1)
    y, x = np.divmod(drawn[np.argsort(walk_order(drawn, height, width), kind="stable")], width)
    smooth = blur(small, max(1.0, 0.4 * size))
    angle = contour_direction(smooth, max(1.0, 0.5 * size))[y, x] + random.normal(0, 0.1, count)
    half = length * random.uniform(0.8, 1.6, count)
    direction = np.stack([np.cos(angle), np.sin(angle)], 1) * half[:, None]
    center = (np.stack([x, y], 1) + 0.5) * ratio
    rows = np.empty((count, kernels.COLUMNS), np.float32)
    rows[:, :6] = np.concatenate([center - direction, center, center + direction], 1)
    rows[:, 6:8] = (length * random.uniform(0.35, 0.6, count))[:, None]
    rows[:, 8:14] = np.tile(smooth[y, x], (1, 2))
    rows[:, 14:] = 0.9
    return rows


def contour_direction(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Angle [H, W] along which `picture` changes least: the structure tensor's minor axis."""
    gray = cv2.transform(picture, np.full((1, 3), 1 / 3, np.float32))
    gx = cv2.Sobel(gray, cv2.CV_32F, 1, 0, ksize=3)
    gy = cv2.Sobel(gray, cv2.CV_32F, 0, 1, ksize=3)
    xx, yy, xy = blur(gx * gx, sigma), blur(gy * gy, sigma), blur(gx * gy, sigma)
    return 0.5 * np.arctan2(2 * xy, xx - yy) + np.pi / 2


def walk_order(places: np.ndarray, height: int, width: int) -> np.ndarray:
    """Rank of pixels along a Hilbert curve, so that neighbors in time are neighbors in space."""
    cells = 32
    side = max(height, width)
    y, x = np.divmod(places, width)
    x, y = (x * cells // side).astype(np.int64), (y * cells // side).astype(np.int64)
    rank = np.zeros_like(x)
    step = cells // 2
    while step:
        right, lower = (x & step) > 0, (y & step) > 0
        rank += step * step * ((3 * right) ^ lower)
        flip = ~lower & right
        x, y = np.where(flip, cells - 1 - x, x), np.where(flip, cells - 1 - y, y)
        x, y = np.where(lower, x, y), np.where(lower, y, x)
        step //= 2
    return rank


def draw(rows: np.ndarray, canvas: np.ndarray) -> np.ndarray:
    return run(rows, round_brush(rows), canvas)[0]


def round_brush(rows: np.ndarray) -> Texture:
    return Texture.of(np.zeros(len(rows), np.int32))


def shrink(picture: np.ndarray, scale: float) -> np.ndarray:
    """`picture` at `scale` times its resolution, by area; itself at 1."""
    if scale >= 1:
        return picture
    height, width = picture.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.ascontiguousarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))


def blur(picture: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(picture, (0, 0), sigma)
