"""Where strokes are born: where the canvas is wrong, along the picture's contours."""

import cv2
import numpy as np

from paintproc.strokes.ops.arrays import StrokeArrays

FIRST_ALPHA = 0.9
"""Opacity of a new stroke."""
TURN = 0.1
"""Standard deviation, in radians, of its direction from the contour's."""
LENGTHS = (0.8, 1.6)
"""Range of half its length, against the typical one."""
RADII = (0.35, 0.6)
"""Range of its radius, against the typical half length."""


class Birthplaces:
    """What decides where strokes of one size are born in `target` [H, W, 3], looked at once.

    Places are drawn with the square of the blurred error of `picture` as density, or evenly where no
    picture is given; the direction is the minor axis of the structure tensor; the color is the
    blurred target's. `length` is the typical half length in pixels.
    """

    def __init__(self, target: np.ndarray, picture: np.ndarray | None, length: float) -> None:
        self.coarser = min(1.0, 4 / length)
        small = shrink(target, self.coarser)
        height, width = small.shape[:2]
        self.length = length
        self.ratio = np.array([target.shape[1] / width, target.shape[0] / height])
        size = length * width / target.shape[1]
        if picture is None:
            self.density = np.ones((height, width))
        else:
            error = cv2.transform(np.abs(small - shrink(picture, self.coarser)), np.ones((1, 3), np.float32))
            self.density = blur(error, size / 2).astype(np.float64) ** 2 + 1e-12
        self.color = blur(small, max(1.0, 0.4 * size))
        self.angle = contour_direction(self.color, max(1.0, 0.5 * size))

    def draw(self, count: int, random: np.random.Generator, where: np.ndarray | None = None) -> StrokeArrays:
        """`count` new strokes in pixels of the target, neighbors in time near each other in space.

        `where` [H, W] multiplies the density.
        """
        density = self.density
        if where is not None:
            density = density * np.maximum(shrink(np.ascontiguousarray(where, np.float32), self.coarser), 1e-9)
        height, width = density.shape
        ladder = np.cumsum(density.ravel())
        drawn = np.searchsorted(ladder, random.random(count) * ladder[-1]).clip(0, ladder.size - 1)
        y, x = np.divmod(drawn[np.argsort(walk_order(drawn, height, width), kind="stable")], width)
        angle = self.angle[y, x] + random.normal(0, TURN, count)
        half = self.length * random.uniform(*LENGTHS, count)
        direction = np.stack([np.cos(angle), np.sin(angle)], 1) * half[:, None]
        center = (np.stack([x, y], 1) + 0.5) * self.ratio
        strokes = StrokeArrays.empty(count)
        strokes.points[:] = np.stack([center - direction, center, center + direction], 1)
        strokes.radius[:] = (self.length * random.uniform(*RADII, count))[:, None]
        strokes.color[:] = self.color[y, x][:, None]
        strokes.alpha[:] = FIRST_ALPHA
        return strokes


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


def shrink(picture: np.ndarray, scale: float) -> np.ndarray:
    """`picture` at `scale` times its resolution, by area; itself at 1."""
    if scale >= 1:
        return picture
    height, width = picture.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.ascontiguousarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))


def blur(picture: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(picture, (0, 0), sigma)
