"""`paint_stylized`: the process of "Stylized Neural Painting" (Zou et al. 2021, arXiv 2011.08114).

The picture is divided into 1 x 1, then 2 x 2 ... 5 x 5 cells. In each grid all cells are painted
at once: again and again one stroke is begun in every cell where the canvas is most wrong, and all
strokes of the grid are optimised together against an L1 pixel loss and an optimal transport loss.
Where the paper trains a network to draw the strokes, the strokes of this package are
differentiable as they are. Cells share one canvas, so that a stroke may cross their borders.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from scipy.ndimage import uniform_filter

from paintproc.config.plan import BLANK, Stage
from paintproc.strokes.adam import Adam, Bounds
from paintproc.strokes.births import contour_direction
from paintproc.strokes.brushes import marker_brush, oil_brush
from paintproc.strokes.fit import check_target
from paintproc.strokes.ops.arrays import Brushes, StrokeArrays, join
from paintproc.strokes.ops.cpu import composite
from paintproc.strokes.ops.in_turn import lay_in_turn
from paintproc.strokes.values import Strokes
from paintproc.synth.transport import SIDE, area_matrix, transport_gradient

GRIDS = 5
"""The last grid has this many cells across and down."""
CELL_SIDE = 64
"""A grid of m x m cells is optimised at m times this longer side, in pixels, at most the target's own;
128 in the paper's code."""
LEAST_CELL = 16
"""A cell has at least this many pixels of the target across and down, if there is more than one."""
STEPS_EACH = 20
"""Optimizer steps for each stroke of a cell; 500 / (strokes of a cell) in the paper's code, 55 for 9."""
MOST_STEPS = 400
"""Optimizer steps of a grid while strokes are begun, at most; 500 in the paper's code."""
FINISH = 60
"""Optimizer steps after that, ever smaller; none in the paper's code, where the last strokes stay unsettled."""
FINISHED = 0.1
"""Factor on the last of them."""
RATE = 0.022
"""Optimizer step in sides of a cell, and in units of color and opacity; 0.002 in the paper's code."""
MOMENTS = (0.3, 0.9)
"""Decay of Adam's running means; the paper's code has RMSprop, with 0.99."""
TRANSPORT_WEIGHT = 0.1
"""Weight of the transport loss against the mean absolute error over a cell."""
START_RADIUS = (0.1, 0.25)
"""Radius of a new stroke, in sides of its cell."""
START_LENGTH = (0.1, 0.3)
"""Half length of a new stroke, in sides of its cell."""
START_TURN = 0.1
"""Standard deviation, in radians, of a new stroke's direction from the picture's contours."""
LEAST_RADIUS = 0.025
"""A stroke no wider than this, in sides of its cell, is left out at the end of its grid."""
RADIUS = (0.02, 0.3)
"""Range of the radius, in sides of a cell."""
LONGEST = 0.5
"""Half the distance between a stroke's ends is at most this, in sides of a cell."""
INNER = (0.1, 0.9)
"""Where the middle of a stroke may lie, in each direction of its cell."""
ERROR_BLUR = 1 / 8
"""Size of the box that blurs the error a stroke's place is drawn from, in heights of the cell."""
ERROR_POWER = 4
"""The blurred error to this power is the probability of a place."""
HARM = 0.3
"""Weight of what a stroke spoils when it is laid against what it is good for at the end of its grid."""
JUDGEMENTS = 8
"""How often, at most, useless strokes are looked for at the end of a grid: one may hide another's use."""


@dataclass(frozen=True, eq=False)
class Medium:
    """What one kind of brush may do."""

    brush: np.ndarray
    alpha: tuple[float, float]
    """Range of opacity."""
    bend: float
    """How far the control point in the middle may lie from the middle of the ends, against their distance."""
    shortest: float
    """The least distance between the ends, in widths of the stroke."""
    two_colors: bool
    """Whether the color changes along the stroke."""

    def brushes(self, count: int) -> Brushes:
        """This brush for `count` strokes."""
        return Brushes.gather(np.zeros(count, np.int32), (self.brush,))


MEDIA = {
    "oil": Medium(oil_brush(), alpha=(0.98, 1.0), bend=0.1, shortest=0.7, two_colors=True),
    "marker": Medium(marker_brush(), alpha=(0.8, 0.98), bend=0.6, shortest=0.4, two_colors=False),
}


def paint_stylized(
    target: np.ndarray,
    count: int,
    *,
    brush: Literal["oil", "marker"] = "oil",
    seed: int = 0,
    progress: Callable[[float], None] = lambda done: None,
) -> Strokes:
    """Paint `target` (sRGB [H, W, 3] in [0, 1]) with at most `count` strokes on a blank canvas.

    Every cell of every grid begins the same number of strokes; those that are of no use are left
    out. `progress` is called with the part of the work done. Equal arguments give equal strokes.
    ValueError where shapes, ranges or names do not fit.
    """
    target = check_target(target, count)
    if brush not in MEDIA:
        raise ValueError(f"the brush is one of {', '.join(MEDIA)}, got {brush!r}")
    height, width = target.shape[:2]
    medium, random = MEDIA[brush], np.random.Generator(np.random.Philox(seed))
    grids, per_cell = divide_strokes(count, height, width)
    works = np.cumsum([0.0, *(cells**2 for cells in range(1, grids + 1))])
    kept, stage = StrokeArrays.zeros(0), np.zeros(0, np.int32)
    for number in range(grids if per_cell else 0):
        small = shrink(target, number + 1)
        ratio = np.array([small.shape[1] / width, small.shape[0] / height], np.float32)
        blank = np.ascontiguousarray(np.broadcast_to(np.array(BLANK, np.float32), small.shape))
        canvas = composite(stretch(kept, ratio), medium.brushes(len(kept)), blank).picture

        def advance(done: float, number: int = number) -> None:
            progress(float((works[number] + (works[number + 1] - works[number]) * done) / works[-1]))

        grid = Grid(small, canvas, number + 1, medium, random)
        grid.paint(per_cell, advance)
        chosen = grid.strokes[grid.find_useful()]
        kept = join([kept, stretch(chosen, 1 / ratio)])
        stage = np.concatenate([stage, np.full(len(chosen), number, np.int32)])
    progress(1.0)
    fields: dict[str, Any] = kept.as_fields(max(height, width))
    stages = tuple(stage_of(number + 1) for number in range(grids))
    return Strokes(
        **fields, stage=stage, stages=stages, regions=("the picture",), brushes=(medium.brush,),
        ground=np.array(BLANK, np.float32), aspect=width / height,
    )  # fmt: skip


def stage_of(cells: int) -> Stage:
    """The stage in which a grid of `cells` x `cells` is painted."""
    return Stage(f"grid {cells}", verb="lay in" if cells == 1 else f"paint, in {cells} by {cells} cells,")


def divide_strokes(count: int, height: int, width: int) -> tuple[int, int]:
    """How many grids, and how many strokes in each cell of all of them."""
    most = max(1, min(GRIDS, min(height, width) // LEAST_CELL))
    cells = np.cumsum(np.arange(1, most + 1) ** 2)
    grids = max(1, int((cells <= count).sum()))
    return grids, count // int(cells[grids - 1])


def shrink(target: np.ndarray, cells: int) -> np.ndarray:
    """`target` as a grid of `cells` x `cells` is optimised: every cell has the same whole number of pixels."""
    height, width = target.shape[:2]
    scale = min(1.0, cells * max(CELL_SIDE / max(height, width), LEAST_CELL / min(height, width)))
    size = [cells * max(1, round(side * scale / cells)) for side in (width, height)]
    return np.ascontiguousarray(cv2.resize(target, size, interpolation=cv2.INTER_AREA))


def stretch(strokes: StrokeArrays, ratio: np.ndarray) -> StrokeArrays:
    """Strokes in other pixels; `ratio` [2] in x and y, nearly equal."""
    strokes = strokes.copy()
    strokes.points[:] *= ratio
    strokes.radius[:] *= np.sqrt(ratio.prod())
    return strokes


def draw_places(density: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """`count` positions in every row of `density` [B, P], by chance in proportion to it: [B, count]."""
    ladders = np.cumsum(density, 1)
    parts = random.random((len(density), count))
    drawn = [np.searchsorted(ladder, part * ladder[-1]) for ladder, part in zip(ladders, parts, strict=True)]
    return np.minimum(np.stack(drawn), density.shape[1] - 1)


class Grid:
    """One grid while it is painted: `strokes` [N] in pixels of its `target`, in painting order.

    Stroke i lies in cell `order[i % cells^2]`: one stroke of every cell, then the next of every cell.
    """

    def __init__(
        self, target: np.ndarray, canvas: np.ndarray, cells: int, medium: Medium, random: np.random.Generator
    ) -> None:
        self.target, self.canvas, self.cells, self.medium, self.random = target, canvas, cells, medium, random
        self.height, self.width = target.shape[0] // cells, target.shape[1] // cells
        self.side = float(np.sqrt(self.height * self.width))
        self.order = random.permutation(cells**2)
        self.strokes, self.adam = StrokeArrays.zeros(0), Adam(0, MOMENTS)
        self.bounds = self.find_bounds(0)
        self.angle = contour_direction(target, max(0.5, self.side / 16))
        self.down, self.right = (area_matrix(cells * SIDE, pixels) for pixels in target.shape[:2])
        self.aim = np.stack([self.light_of(target[..., channel]) for channel in range(3)])

    def paint(self, per_cell: int, progress: Callable[[float], None] = lambda done: None) -> None:
        """Begin `per_cell` strokes in every cell, one after the other, and optimise them all the time."""
        steps = min(MOST_STEPS, STEPS_EACH * per_cell)
        for step in range(steps + FINISH):
            begun, due = (min(per_cell, -(-number * per_cell // steps)) for number in (step, step + 1))
            self.step(due - begun, max(FINISHED, 1 - max(0, step - steps) / FINISH))
            progress((step + 1) / (steps + FINISH))

    def step(self, births: int, factor: float) -> None:
        """Begin `births` strokes in every cell and take one optimizer step."""
        picture = self.draw()
        if births:
            self.begin_strokes(picture, births)
            picture = self.draw()
        self.adam.step(self.strokes, self.gradient(picture), self.bounds, factor)
        self.confine()

    def draw(self) -> np.ndarray:
        return composite(self.strokes, self.medium.brushes(len(self.strokes)), self.canvas).picture

    def gradient(self, picture: np.ndarray) -> StrokeArrays:
        """Derivative of the loss by the strokes' parameters; `picture` is what they draw."""
        brushes = self.medium.brushes(len(self.strokes))
        return self.tie(composite(self.strokes, brushes, self.canvas, upstream=self.slope_of(picture)).gradients)

    def slope_of(self, picture: np.ndarray) -> np.ndarray:
        """Derivative of the loss by the picture [H, W, 3].

        The loss is the sum over all cells of mean absolute error and weighted transport distance,
        the latter in a channel drawn by chance.
        """
        slope = np.sign(picture - self.target) / np.float32(3 * self.height * self.width)
        channel = int(self.random.integers(3))
        light = transport_gradient(self.light_of(picture[..., channel]), self.aim[channel]).astype(np.float32)
        light = light.reshape(self.cells, self.cells, SIDE, SIDE).swapaxes(1, 2).reshape(2 * [self.cells * SIDE])
        slope[..., channel] += np.float32(TRANSPORT_WEIGHT) * ((self.down.T @ light) @ self.right)
        return slope

    def light_of(self, channel: np.ndarray) -> np.ndarray:
        """One channel [H, W] resized by area, cell by cell: [cells^2, SIDE, SIDE]."""
        small = (self.right @ (self.down @ channel).T).T
        return small.reshape(self.cells, SIDE, self.cells, SIDE).swapaxes(1, 2).reshape(-1, SIDE, SIDE)

    def tie(self, slopes: StrokeArrays) -> StrokeArrays:
        """`slopes` with the mean of both ends where a stroke is the same at both."""
        tied = [slopes.radius, slopes.alpha] + ([] if self.medium.two_colors else [slopes.color])
        for ends in tied:
            ends[:] = ends.mean(1, keepdims=True)
        return slopes

    def begin_strokes(self, picture: np.ndarray, births: int) -> None:
        """New strokes on top, `births` in every cell, where `picture` misses the target, along its contours."""
        middle = self.find_places(picture, births)
        column, row = middle.astype(int).T
        count = len(middle)
        angle = self.angle[row, column] + self.random.normal(0, START_TURN, count)
        length = self.random.uniform(*START_LENGTH, (count, 1)) * self.side
        half = length * np.stack([np.cos(angle), np.sin(angle)], 1)
        born = StrokeArrays.empty(count)
        born.points[:] = np.stack([middle - half, middle, middle + half], 1)
        born.radius[:] = self.random.uniform(*START_RADIUS, (count, 1)) * self.side
        born.color[:] = self.target[row, column][:, None]
        born.alpha[:] = self.random.uniform(*self.medium.alpha, (count, 1))
        self.strokes = join([self.strokes, born])
        self.adam.grow(count)
        self.bounds = self.find_bounds(len(self.strokes))

    def find_places(self, picture: np.ndarray, births: int) -> np.ndarray:
        """Places (x, y) [births cells^2, 2] in pixels, inside the cells in painting order."""
        error = np.abs(picture - self.target).sum(2)
        error = error.reshape(self.cells, self.height, self.cells, self.width).swapaxes(1, 2)
        error = error.reshape(-1, self.height, self.width)[self.order]
        box = max(1, int(self.height * ERROR_BLUR))
        error = uniform_filter(error, (0, box, box), mode="nearest").reshape(len(error), -1).astype(np.float64)
        density = (np.maximum(error, 0) / np.maximum(error.max(1, keepdims=True), 1e-6)) ** ERROR_POWER + 1e-9
        y, x = np.divmod(draw_places(density, births, self.random).T.ravel(), self.width)
        return np.clip(np.stack([x, y], 1) + 0.5 + self.corners(len(x)), *self.inner(len(x)))

    def corners(self, count: int) -> np.ndarray:
        """The top left corner [count, 2] of the cells of the first `count` strokes, in pixels."""
        row, column = np.divmod(np.tile(self.order, count // len(self.order)), self.cells)
        return np.stack([column * self.width, row * self.height], 1)

    def inner(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The least and the largest (x, y) [count, 2] of the middle of the first `count` strokes, in pixels."""
        corners, size = self.corners(count), np.array([self.width, self.height])
        return corners + INNER[0] * size, corners + INNER[1] * size

    def find_bounds(self, count: int) -> Bounds:
        """Optimizer step, least and largest value of every parameter of `count` strokes.

        Where the points of a stroke may lie depends on one another: see `confine`.
        """
        bounds = Bounds.empty(count)
        bounds.rate.points[:], bounds.rate.radius[:] = RATE * self.side, RATE * self.side
        bounds.rate.color[:], bounds.rate.alpha[:] = RATE, RATE
        bounds.low.points[:], bounds.high.points[:] = -np.inf, np.inf
        bounds.low.radius[:], bounds.high.radius[:] = RADIUS[0] * self.side, RADIUS[1] * self.side
        bounds.low.color[:], bounds.high.color[:] = 0, 1
        bounds.low.alpha[:], bounds.high.alpha[:] = self.medium.alpha
        return bounds

    def confine(self) -> None:
        """Bring the points of all strokes to where they may lie together."""
        points, medium = self.strokes.points, self.medium
        start, control, end = points.transpose(1, 0, 2)
        center, half = (start + end) / 2, (end - start) / 2
        bend = control - center
        length = np.maximum(np.linalg.norm(half, axis=1, keepdims=True), 1e-6)
        allowed = np.clip(length, medium.shortest * self.strokes.radius[:, :1], LONGEST * self.side)
        half *= allowed / length
        bent = np.maximum(np.linalg.norm(bend, axis=1, keepdims=True), 1e-6)
        bend *= np.minimum(1, 2 * medium.bend * allowed / bent)
        # the curve's own middle lies half of the bend from the middle of its ends
        center = np.clip(center + bend / 2, *self.inner(len(points))) - bend / 2
        points[:] = np.stack([center - half, center + bend, center + half], 1)

    def find_useful(self) -> np.ndarray:
        """Which strokes stay [N]: wide enough, and such that the canvas is nearer to the target for them.

        One that is hidden in the end stays if it helped when it was laid; one that spoiled more then
        than it is good for in the end does not.
        """
        useful = self.strokes.radius.max(1) > LEAST_RADIUS * self.side
        for _ in range(JUDGEMENTS):
            strokes = self.strokes[useful]
            brushes, aim_of = self.medium.brushes(len(strokes)), np.zeros(len(strokes), np.int32)
            removal = composite(strokes, brushes, self.canvas, target=self.target).removal
            change = lay_in_turn(strokes, brushes, self.canvas, self.target[None], aim_of).change
            good = (removal >= 0) & (removal > HARM * change)
            useful[np.flatnonzero(useful)[~good]] = False
            if good.all():
                break
        return useful
