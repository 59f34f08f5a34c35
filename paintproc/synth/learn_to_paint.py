"""The process of "Learning to Paint" (Huang et al. 2019, arXiv 1903.04411), without its network.

There an actor lays five semi-transparent strokes a step: half of the steps over the whole canvas,
the other half in every patch of a 4 x 4 grid at once; the reward of a step is how much nearer to
the target it brings the canvas. Here the actor is a search: candidates are drawn where the canvas
is wrong, the best are improved, each on its own, and the one that takes away most error is laid,
five times; then the strokes of the step are improved together.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from paintproc.config.plan import BLANK, Stage
from paintproc.strokes.adam import Adam, Bounds
from paintproc.strokes.births import blur, contour_direction, shrink
from paintproc.strokes.fit import check_target
from paintproc.strokes.ops.arrays import Brushes, StrokeArrays, join
from paintproc.strokes.ops.cpu import composite
from paintproc.strokes.ops.in_turn import LaidStrokes, lay_alone, lay_in_turn
from paintproc.strokes.optimize import LARGEST_RADIUS, LENGTH_COUNT, SMALLEST_RADIUS
from paintproc.strokes.values import Strokes

STAGES = (
    Stage("whole canvas", verb="lay transparent strokes all over"),
    Stage("patches", verb="work patch by patch on"),
)
"""The two halves of the work."""
BUNDLE = 5
"""Strokes a step lays on the canvas, or in every patch: the paper's action bundle (section 3.2)."""
GRID = 4
"""Patches along each side, at most."""
SMALLEST_PATCH = 24
"""Side of a patch in pixels of the target; smaller pictures have fewer patches."""
FEWEST_STEPS = 3
"""In each half; the grid is coarser where there would be fewer."""
EXTRA_STEPS = 2
"""More steps in patches, as a multiple of the planned, may make up for strokes not worth laying."""
ENOUGH = 0.95
"""After a step that lays a smaller part of its strokes, the search goes on at higher resolution."""
FINER = 1.5
"""That resolution against the one before."""
IDLE = 2
"""After so many steps in a row that found nothing a half ends."""
ALPHA = (0.15, 0.85)
"""Range of opacity: every stroke lets something through."""
REACH = 0.5
"""How far the points of a stroke may lie outside its patch, against the patch's longer side."""
WHOLE_SIDE, PATCH_SIDE = 128, 256
"""Longer side in pixels of the picture in which strokes are searched, in the two halves; with more than
`LENGTH_COUNT` strokes the second is larger, by the fourth root."""
POLISH_SIDE = 512
"""The same, where the strokes of a step are improved together."""
SIZES = (0.2, 0.12, 0.07, 0.04, 0.024, 0.014)
"""Typical radii of candidates, against the longer side of the canvas, or of the patch."""
PROPOSED = 16
"""Candidates of each size in each patch for one stroke."""
RADII, HALF_LENGTHS = (0.7, 1.4), (0.3, 4.0)
"""Ranges of a candidate's radius against the typical one, and of half its length against its radius."""
TURN = 0.3
"""Standard deviation of its direction, in radians."""
FIRST_ALPHA = 0.7
"""Its opacity before it is improved."""
KEPT = 8
"""Candidates in each patch that are improved."""
IMPROVEMENTS = 24
"""Optimizer steps for a candidate."""
POLISHES = 48
"""Optimizer steps for the strokes of one step together."""
MOVE = 0.4
"""Optimizer step for points against a stroke's radius; half of it for radii."""
TINT = 0.04
"""Optimizer step for opacity; where strokes are improved together, half of it for color."""
NEAR = 0.5
"""Factor on the steps of strokes that are improved together: they are near to where they should be."""
SETTLED = 0.3
"""The last optimizer steps against the first."""
LEAST_GAIN = 1e-4
"""Squared error, summed over pixels and channels, that a stroke must take away to be laid."""
INSIDE = np.float32(1e-3)
"""How far inside its patch a stroke's middle stays, against the patch's sides."""


def learn_to_paint(
    target: np.ndarray, count: int, *, seed: int = 0, progress: Callable[[float], None] = lambda done: None
) -> Strokes:
    """Paint `target` (sRGB [H, W, 3] in [0, 1]) with `count` strokes, on the blank canvas.

    There are fewer strokes where no more are found that bring the canvas nearer to the target.
    `progress` is called after each step with the part of the strokes that are laid. Equal
    arguments give equal strokes. ValueError where shapes do not fit.
    """
    target = check_target(target, count)
    height, width = target.shape[:2]
    steps, down, across = plan_steps(count, height, width)
    random = np.random.Generator(np.random.Philox(seed))
    laid = StrokeArrays.zeros(0)
    counts = []
    finer = max(1.0, (count / LENGTH_COUNT) ** 0.25)
    halves = (WHOLE_SIDE, (1, 1), steps), (round(PATCH_SIDE * finer), (down, across), (1 + EXTRA_STEPS) * steps)
    for side, grid, most in halves:
        search, finish = (set_up(target, laid, longer, grid) for longer in (side, POLISH_SIDE))
        before, idle = len(laid), 0
        for _ in range(most):
            if len(laid) == count or idle == IDLE:
                break
            asked = min(count - len(laid), BUNDLE * len(search.patches))
            found = paint_step(search, finish, asked, random)
            idle = 0 if len(found) else idle + 1
            laid = join([laid, found])
            if len(found) < ENOUGH * asked and search.longer < finish.longer:
                # what is still wrong is finer than the search can see
                search = set_up(target, laid, round(FINER * search.longer), grid)
            progress(len(laid) / count)
        counts.append(len(laid) - before)
    progress(1.0)
    fields: dict[str, Any] = laid.as_fields(1)
    return Strokes(
        **fields,
        stage=np.repeat(np.arange(len(STAGES)), counts),
        stages=STAGES,
        regions=("the picture",),
        ground=np.array(BLANK, np.float32),
        aspect=width / height,
    )


def plan_steps(count: int, height: int, width: int) -> tuple[int, int, int]:
    """Steps in each half, and the grid of the second: patches down and across.

    Small pictures and few strokes have a coarser grid.
    """
    most = GRID
    while True:
        down, across = (max(1, min(most, side // SMALLEST_PATCH)) for side in (height, width))
        strokes = BUNDLE * (1 + down * across)
        if most == 1 or count >= FEWEST_STEPS * strokes:
            return -(-count // strokes), down, across
        most //= 2


def set_up(target: np.ndarray, laid: StrokeArrays, side: int, grid: tuple[int, int]) -> "View":
    """A view of at most `side` pixels, with the strokes `laid` so far, in canvas units, on its canvas."""
    height, width = target.shape[:2]
    small = shrink(target, side / max(height, width))
    longer = max(small.shape[:2])
    down, across = grid
    row, column = np.divmod(np.arange(down * across), across)
    edges = np.stack([column / across, row / down, (column + 1) / across, (row + 1) / down], 1)
    patches = edges * np.tile([width, height], 2) * (longer / max(height, width))
    unit = float((patches[:, 2:] - patches[:, :2]).max())
    sizes = [max(SMALLEST_RADIUS, size * unit) for size in SIZES]
    angles = [contour_direction(blur(small, size / 2), size) for size in sizes]
    canvas = np.ascontiguousarray(np.broadcast_to(np.array(BLANK, np.float32), small.shape))
    view = View(small, canvas, patches.astype(np.float32), unit, sizes, angles, float(longer))
    view.canvas = draw(laid.copy().scale(view.longer), canvas)
    return view


def paint_step(search: "View", finish: "View", most: int, random: np.random.Generator) -> StrokeArrays:
    """Lay five strokes in every patch, together at most `most`: in canvas units, in painting order.

    Strokes are searched in one view and improved together in the other; both canvases get them.
    """
    strokes, patch, gain = choose(search, random)
    if len(strokes) > most:
        best = np.sort(np.argsort(-gain, kind="stable")[:most])
        strokes, patch = strokes[best], patch[best]
    if len(strokes):
        strokes.scale(finish.longer / search.longer)
        strokes = without_harm(finish, polish(finish, strokes, patch))
        finish.canvas = draw(strokes, finish.canvas)
        strokes.scale(1 / finish.longer)
        search.canvas = draw(strokes.copy().scale(search.longer), search.canvas)
    return strokes


def choose(view: "View", random: np.random.Generator) -> tuple[StrokeArrays, np.ndarray, np.ndarray]:
    """Up to five strokes for every patch: the strokes [N], their patches [N] and what they gain [N].

    In painting order: first the stroke that gains most in each patch, patches row by row; then,
    on the canvas with those, the second of each patch, and so on.
    """
    canvas, found = view.canvas, []
    for _ in range(BUNDLE):
        strokes, patch = propose(view, canvas, random)
        strokes, gain = recolor(strokes, lay_alone(strokes, Brushes.round(len(strokes)), canvas, view.target))
        best = np.flatnonzero(rank_in_patch(patch, gain) < KEPT)
        strokes, patch = strokes[best], patch[best]
        strokes, gain = improve(view, canvas, strokes, patch)
        best = np.flatnonzero((rank_in_patch(patch, gain) == 0) & (gain > LEAST_GAIN))
        found.append((strokes[best], patch[best], gain[best]))
        canvas = draw(strokes[best], canvas)
    chosen, patches, gains = zip(*found, strict=True)
    return join(list(chosen)), np.concatenate(patches), np.concatenate(gains)


def rank_in_patch(patch: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Place of each stroke [N] among those of its patch, 0 for the largest gain."""
    order = np.lexsort((-gain, patch))
    rank = np.empty(len(patch), np.int64)
    rank[order] = np.arange(len(patch)) - np.searchsorted(patch[order], patch[order])
    return rank


def propose(view: "View", canvas: np.ndarray, random: np.random.Generator) -> tuple[StrokeArrays, np.ndarray]:
    """Candidates [N], patch by patch, and their patches [N]; as many of each size in each.

    Places are drawn with the square of the blurred error as density; directions are those in
    which the target changes least. Colors are found later.
    """
    patches = len(view.patches)
    patch = np.repeat(np.arange(patches), PROPOSED)
    parts = []
    for size, angles in zip(view.sizes, view.angles, strict=True):
        error = shrink(view.target - canvas, min(1.0, 4 / size))
        error = blur(error, max(0.5, size / 2 * error.shape[1] / canvas.shape[1]))
        density = cv2.transform(error * error, np.ones((1, 3), np.float32)) + np.float32(1e-12)
        scale = np.array(density.shape[::-1]) / canvas.shape[1::-1]
        center = np.concatenate([draw_places(density, box * np.tile(scale, 2), random) for box in view.patches]) / scale
        x, y = np.minimum(center, np.array(canvas.shape[1::-1]) - 1).astype(int).T
        angle = angles[y, x] + random.normal(0, TURN, len(patch))
        radius = size * random.uniform(*RADII, len(patch))
        half = radius * random.uniform(*HALF_LENGTHS, len(patch))
        along = np.stack([np.cos(angle), np.sin(angle)], 1) * half[:, None]
        strokes = StrokeArrays.empty(len(patch))
        strokes.points[:] = np.stack([center - along, center, center + along], 1)
        strokes.radius[:] = radius[:, None]
        strokes.color[:] = view.target[y, x][:, None]
        strokes.alpha[:] = FIRST_ALPHA
        parts.append(strokes)
    patch = np.tile(patch, len(parts))
    turn = np.argsort(patch, kind="stable")
    strokes, patch = join(parts)[turn], patch[turn]
    strokes = find_bounds(view, strokes, patch).clip(strokes)
    hold(strokes, view.patches[patch])
    return strokes, patch


def draw_places(density: np.ndarray, box: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Points (x, y) [PROPOSED, 2] in pixels, drawn from `density` [H, W] within `box`: left, top, right, bottom."""
    left, top = np.minimum(np.floor(box[:2] + 1e-3).astype(int), np.array(density.shape[::-1]) - 1)
    right, bottom = np.maximum(np.ceil(box[2:] - 1e-3).astype(int), (left + 1, top + 1))
    inside = density[top:bottom, left:right]
    ladder = np.cumsum(inside, dtype=np.float64)
    drawn = np.searchsorted(ladder, random.random(PROPOSED) * ladder[-1]).clip(0, ladder.size - 1)
    y, x = np.divmod(drawn, inside.shape[1])
    return np.stack([x + left, y + top], 1) + random.random((PROPOSED, 2))


def recolor(strokes: StrokeArrays, found: LaidStrokes) -> tuple[StrokeArrays, np.ndarray]:
    """The strokes in the color best for each, and the squared error each then takes away [N].

    `found` is what `lay_alone` or `lay_in_turn` found. The error is a parabola of the color, so one step
    goes to its bottom, or to the edge of the range.
    """
    slope, bend = found.color.sum(1), found.squared_opacity[:, None]
    before = strokes.color[:, 0]
    color = np.clip(before - slope / np.maximum(bend, np.float32(1e-6)), 0, 1)
    move = color - before
    gain = -2 * (found.change + ((slope + bend * move / 2) * move).sum(1))
    better = strokes.copy()
    better.color[:] = color[:, None]
    return better, gain


def improve(
    view: "View", canvas: np.ndarray, strokes: StrokeArrays, patch: np.ndarray
) -> tuple[StrokeArrays, np.ndarray]:
    """Every stroke improved on its own, as if it alone were laid on `canvas`; and what each gains [N]."""
    brushes, adam = Brushes.round(len(strokes)), Adam(len(strokes))
    bounds = find_bounds(view, strokes, patch)
    # the best color is found directly
    bounds.rate.color[:] = 0
    best, most = strokes.copy(), np.full(len(strokes), -np.inf, np.float32)
    for step in range(IMPROVEMENTS + 1):
        found = lay_alone(strokes, brushes, canvas, view.target)
        strokes, gain = recolor(strokes, found)
        better = gain > most
        best[better], most[better] = strokes[better], gain[better]
        if step < IMPROVEMENTS:
            adam.step(strokes, found, bounds, 1 - (1 - SETTLED) * step / IMPROVEMENTS)
            hold(strokes, view.patches[patch])
    return best, most


def polish(view: "View", strokes: StrokeArrays, patch: np.ndarray) -> StrokeArrays:
    """The strokes of a step, laid one over the other, improved together."""
    brushes, adam = Brushes.round(len(strokes)), Adam(len(strokes))
    bounds = find_bounds(view, strokes, patch)
    strokes = bounds.clip(strokes)
    best, least = strokes, np.inf
    for step in range(POLISHES + 1):
        done = composite(strokes, brushes, view.canvas, target=view.target)
        error = float(cv2.norm(done.picture, view.target, cv2.NORM_L2SQR))
        if error < least:
            best, least = strokes.copy(), error
        if step < POLISHES:
            # one color: both ends have the sum of their slopes
            done.gradients.color[:] = done.gradients.color.sum(1, keepdims=True)
            adam.step(strokes, done.gradients, bounds, NEAR * (1 - (1 - SETTLED) * step / POLISHES))
            hold(strokes, view.patches[patch])
    return best


def without_harm(view: "View", strokes: StrokeArrays) -> StrokeArrays:
    """The strokes of a step without those that do harm when they are laid, where nothing makes them help.

    First they get the color that is best on what lies under them, then they also get thin.
    """
    strokes = strokes.copy()
    for thin in [False] * 2 + [True] * 2:
        harmful, better = judge(view, strokes)
        if not harmful.any():
            return strokes
        strokes[harmful] = better[harmful]
        if thin:
            strokes.alpha[harmful] = ALPHA[0]
            strokes[harmful] = judge(view, strokes)[1][harmful]
    while len(strokes) and (harmful := judge(view, strokes)[0]).any():
        strokes = strokes[~harmful]
    return strokes


def judge(view: "View", strokes: StrokeArrays) -> tuple[np.ndarray, StrokeArrays]:
    """Which strokes [N] do harm when they are laid one over the other, and the strokes in their best colors [N]."""
    none = np.zeros(len(strokes), np.int32)
    found = lay_in_turn(strokes, Brushes.round(len(strokes)), view.canvas, view.target[None], none)
    return found.change >= 0, recolor(strokes, found)[0]


def find_bounds(view: "View", strokes: StrokeArrays, patch: np.ndarray) -> Bounds:
    """Optimizer step, lower and upper bound of every parameter of strokes [N] in these patches [N]."""
    bounds = Bounds.empty(len(strokes))
    box, reach = view.patches[patch][:, None], np.float32(REACH * view.unit)
    bounds.low.points[:], bounds.high.points[:] = box[..., :2] - reach, box[..., 2:] + reach
    bounds.low.radius[:], bounds.high.radius[:] = SMALLEST_RADIUS, max(SMALLEST_RADIUS, LARGEST_RADIUS * view.unit)
    bounds.low.color[:], bounds.high.color[:] = 0, 1
    bounds.low.alpha[:], bounds.high.alpha[:] = ALPHA
    move = MOVE * strokes.radius.mean(1, keepdims=True)
    bounds.rate.points[:], bounds.rate.radius[:] = move[..., None], move / 2
    bounds.rate.color[:], bounds.rate.alpha[:] = TINT / 2, TINT
    return bounds


def hold(strokes: StrokeArrays, boxes: np.ndarray) -> None:
    """Move strokes [N], in place, so that their middles lie in their patches [N, 4].

    Control points come to lie in the circle over the chord: the paper has them in the box over it.
    """
    start, control, end = strokes.points.transpose(1, 0, 2)
    center, half = (start + end) / 2, np.linalg.norm(end - start, axis=1, keepdims=True) / 2
    off = control - center
    control[:] = center + off * np.minimum(1, half / np.maximum(np.linalg.norm(off, axis=1, keepdims=True), 1e-6))
    middle = (start + 2 * control + end) / 4
    margin = INSIDE * (boxes[:, 2:] - boxes[:, :2])
    strokes.points[:] += (np.clip(middle, boxes[:, :2] + margin, boxes[:, 2:] - margin) - middle)[:, None]


def draw(strokes: StrokeArrays, canvas: np.ndarray) -> np.ndarray:
    """`canvas` [H, W, 3] with `strokes`, in its pixels, laid on it."""
    return composite(strokes, Brushes.round(len(strokes)), canvas).picture


@dataclass
class View:
    """The target at one resolution, and what is done of it."""

    target: np.ndarray
    canvas: np.ndarray
    patches: np.ndarray
    """Left, top, right, bottom in pixels [P, 4], row by row."""
    unit: float
    """Longer side of a patch, in pixels."""
    sizes: list[float]
    """Typical radii of candidates, in pixels."""
    angles: list[np.ndarray]
    """Direction [H, W] for candidates of each size."""
    longer: float
    """Longer side of the picture, in pixels."""
