"""Painting under a plan: stages, regions in order, all strokes optimised together.

A stroke belongs to a stage and a region and keeps its place in the order. The optimizer
looks at the finished picture and, in turn, at the canvas as it stands when a region has been
blocked in (`find_layers`), so that the canvas on the way is painted for its own sake. At the
end strokes that did not bring the canvas nearer to their own aim are taken away.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from paintproc.config.plan import Plan, Stage
from paintproc.process.drawing import draw_contours, wash, wash_color
from paintproc.scene.layers import Filler, fill, find_layers
from paintproc.scene.values import Scene
from paintproc.strokes import fit as fitting
from paintproc.strokes.brushes import ROUND, dry_brush
from paintproc.strokes.fit import Adam, blur, seed_strokes, shrink
from paintproc.strokes.ops import kernels
from paintproc.strokes.ops.in_turn import error_changes, lay_in_turn
from paintproc.strokes.rasterize import Texture, run, unpack
from paintproc.strokes.values import Strokes

BRUSHES = (ROUND, dry_brush())
"""For paint, and for the drawing."""
PER_ROW = ("rows", "stage", "region", "born_color", "fixed", "mean", "square", "age")
JUDGED_SIDE = 512
"""Strokes are judged on a canvas of at most this size."""
OWN_AIM = 0.15
"""How much the canvas right after a stroke counts, against the finished one."""
OWN_AIM_EVERY = 2
"""It is looked at every so many steps, and counts as much more."""
POLISH = 30
"""Optimizer steps after strokes were taken away at the end."""
DONE = 0.05
"""A region of a begun canvas is blocked in when it is this near to the blurred picture (L1)."""


def paint(
    target: np.ndarray,
    count: int,
    plan: Plan,
    scene: Scene,
    *,
    canvas: np.ndarray | None = None,
    names: tuple[str, ...] | None = None,
    filler: Filler = fill,
    seed: int = 0,
    progress: Callable[[float], None] = lambda done: None,
) -> Strokes:
    """Paint `target` (sRGB [H, W, 3] in [0, 1]) with at most `count` strokes under `plan`.

    `canvas` [H, W, 3] is a begun canvas: it stays as it is where a region is blocked in already,
    and gets neither wash nor drawing. `names` are the regions' names; `filler` makes up what lies behind
    them. Equal arguments give equal
    strokes.
    """
    target = np.ascontiguousarray(target, np.float32)
    under = wash_color(target) if canvas is None else canvas
    layers = find_layers(target, scene, under, plan.behind, filler)
    painter = _Painter(target, scene, layers, canvas, plan, np.random.Generator(np.random.Philox(seed)))
    painter.lay_ground_and_drawing(plan, count)
    left = max(0, count - len(painter.rows))
    shorter = min(1.0, (fitting.LENGTH_COUNT / max(count, 1)) ** 0.25)
    shares = np.array([stage.share for stage in plan.stage])
    births = np.diff(np.rint(np.cumsum([0, *shares]) / shares.sum() * left).astype(int))
    works = np.cumsum([0, *(stage.steps * stage.scale for stage in plan.stage)])
    for k in range(len(plan.stage)):
        painter.paint_stage(k, int(births[k]), shorter)
        progress(float(works[k + 1] / works[-1]))
    painter.take_away_what_did_not_help()
    painter.polish(shorter)
    return painter.strokes(names or tuple(f"region {k}" for k in range(len(scene))))


class _Painter:
    """The strokes so far, in pixels of the target, with what the optimizer knows of each."""

    def __init__(
        self,
        target: np.ndarray,
        scene: Scene,
        layers: list[np.ndarray],
        canvas: np.ndarray | None,
        plan: Plan,
        random: np.random.Generator,
    ) -> None:
        self.target, self.scene, self.random, self.plan = target, scene, random, plan
        self.ground = np.array(plan.ground.blank, np.float32) if canvas is None else canvas
        self.begun = canvas is not None
        self.side = max(target.shape[:2])
        self.layers = layers
        self.rows = np.zeros((0, kernels.COLUMNS), np.float32)
        self.mean = np.zeros((0, kernels.COLUMNS), np.float32)
        self.square = np.zeros((0, kernels.COLUMNS), np.float32)
        self.born_color = np.zeros((0, 6), np.float32)
        self.stage, self.region, self.age = (np.zeros(0, np.int32) for _ in range(3))
        self.fixed = np.zeros(0, bool)

    def lay_ground_and_drawing(self, plan: Plan, count: int) -> None:
        if self.begun:
            return
        rows = wash(self.target, plan.ground, self.random)[:count]
        self.add(rows, 0, np.zeros(len(rows), np.int32), fixed=True)
        rows, regions = draw_contours(self.target, self.scene, plan.drawing, round(count * plan.drawing.share))
        self.add(rows, 1, regions, fixed=True)

    def add(self, rows: np.ndarray, stage: int, regions: np.ndarray, fixed: bool = False) -> None:
        count = len(rows)
        fresh = np.zeros((count, kernels.COLUMNS), np.float32)
        self.rows = np.concatenate([self.rows, rows.astype(np.float32)])
        self.mean, self.square = np.concatenate([self.mean, fresh]), np.concatenate([self.square, fresh])
        self.age = np.concatenate([self.age, np.zeros(count, np.int32)])
        self.stage = np.concatenate([self.stage, np.full(count, stage, np.int32)])
        self.region = np.concatenate([self.region, regions.astype(np.int32)])
        self.born_color = np.concatenate([self.born_color, rows[:, 8:14].astype(np.float32)])
        self.fixed = np.concatenate([self.fixed, np.full(count, fixed)])

    def take(self, index: np.ndarray) -> None:
        """Keep the strokes at `index`, in this order."""
        for name in PER_ROW:
            setattr(self, name, getattr(self, name)[index])

    def paint_stage(self, place: int, births: int, shorter: float) -> None:
        """Give birth to a stage's strokes, region by region, and optimise all strokes."""
        stage, number = self.plan.stage[place], place + 2
        view = _View(self, stage, shorter)
        self.rows[:, :8] *= view.scale
        turn = (
            np.argsort(self.scene.weight, kind="stable") if stage.order == "focus-last" else np.arange(len(self.scene))
        )
        rank = np.empty(len(turn), int)
        rank[turn] = np.arange(len(turn))
        self.mean[:], self.square[:], self.age[:] = 0, 0, 0
        self.give_birth(stage, number, births, turn, view)
        rebirths = {round(stage.steps * part) for part in fitting.REBIRTHS} if stage.aim == "picture" else set()
        bounds = self.bounds(stage, number, view)
        for step in range(stage.steps):
            own = OWN_AIM_EVERY * OWN_AIM if step % OWN_AIM_EVERY == 0 and step not in rebirths else 0.0
            picture, found = self.slopes(view, own)
            if step in rebirths:
                self.give_rebirth(number, int(births * fitting.REBORN), found[:, 16], picture, rank, view)
                bounds = self.bounds(stage, number, view)
                continue
            settle = 1.0 if step < fitting.SETTLE[0] * stage.steps else fitting.SETTLE[1]
            self.move(found, settle, bounds)
        self.rows[:, :8] /= view.scale
        now = self.stage == number
        self.born_color[now] = self.rows[now, 8:14]

    def slopes(self, view: "_View", own: float) -> tuple[np.ndarray, np.ndarray]:
        """The picture, and the gradient rows [N, 17] against it and, `own` as much, own aims."""
        texture = self.texture()
        picture, found = run(self.rows, texture, view.canvas, target=view.target, mode=kernels.SQUARED_ERROR)
        if own:
            alone = lay_in_turn(self.rows, texture, view.canvas, view.aims, self.aims())
            found[:, :16] += own * alone[:, :16]
        return picture, found

    def give_birth(self, stage: Stage, number: int, births: int, turn: np.ndarray, view: "_View") -> None:
        picture = run(self.rows, self.texture(), view.canvas)[0]
        wheres, masses = {}, np.zeros(len(self.scene))
        for k in turn:
            wheres[k], masses[k] = self.places(stage, int(k), picture, view)
        shares = np.zeros(len(self.scene), int)
        if masses.sum() > 0:
            steps = np.rint(np.cumsum([0, *(masses[turn] / masses.sum())]) * births)
            shares[turn] = np.diff(steps).astype(int)
        for k in turn:
            if shares[k]:
                aim = view.layer(int(k)) if stage.aim == "layers" else view.target
                seen = aim + np.float32(0.3) if stage.aim == "layers" else picture
                rows = seed_strokes(aim, seen, int(shares[k]), view.length, self.random, wheres[k])
                self.add(rows, number, np.full(len(rows), k))

    def places(self, stage: Stage, k: int, picture: np.ndarray, view: "_View") -> tuple[np.ndarray, float]:
        """Where strokes of region k may be born [h, w], and how many of them, relatively."""
        inside = (view.regions == k).astype(np.float32)
        if stage.aim == "layers":
            reach = 2 * round(stage.behind * max(view.regions.shape)) + 1
            run_on = cv2.dilate(inside, np.ones((reach, reach), np.uint8)) * (view.regions >= k)
            if self.begun:
                gap = np.abs(blur(view.target, 2 * view.length) - blur(picture, 2 * view.length)).mean(2)
                if float((gap * inside).sum()) < DONE * float(inside.sum()):
                    return run_on, 0.0
            return run_on, float(np.sqrt(inside.mean())) + 0.02
        error = np.abs(view.target - picture).sum(2)
        if stage.aim == "lights":
            gray = view.target.mean(2)
            inside = inside * np.maximum(0, gray - blur(gray, 0.02 * max(gray.shape)) - 0.03)
            error = error * inside
        density = blur(error, view.length / 2) ** 2
        return inside, float((density * (inside > 0)).sum())

    def give_rebirth(
        self, number: int, births: int, removal: np.ndarray, picture: np.ndarray, rank: np.ndarray, view: "_View"
    ) -> None:
        """Take away the painted strokes whose loss costs least; new ones join their region's turn."""
        removal = np.where(self.fixed, np.inf, removal)
        dead = np.argsort(removal, kind="stable")[:births]
        self.take(np.setdiff1d(np.arange(len(self.rows)), dead))
        born = seed_strokes(view.target, picture, len(dead), view.length * fitting.REBORN_LENGTH, self.random)
        height, width = view.regions.shape
        x, y = np.clip(born[:, 2].astype(int), 0, width - 1), np.clip(born[:, 3].astype(int), 0, height - 1)
        self.add(born, number, view.regions[y, x])
        turn = np.where(self.stage == number, rank[self.region], 0)
        self.take(np.lexsort((np.arange(len(turn)), turn, self.stage)))

    def bounds(self, stage: Stage, number: int, view: "_View") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Step size, lower and upper bound of every parameter [N, 16]."""
        rate, low, high = (np.empty(self.rows.shape, np.float32) for _ in range(3))
        dried = fitting.DRIED_MOVE ** (number - self.stage[:, None]).astype(np.float32)
        move = view.length * fitting.MOVE * dried
        rate[:, :6], rate[:, 6:8], rate[:, 8:] = move, move / 2, fitting.TINT
        side = self.side * view.scale
        low[:, :6], high[:, :6] = -side, 2 * side
        # the last stage may paint with the thinnest brush, each stage before it with a thicker one
        thinnest = fitting.SMALLEST_RADIUS * (1 + 0.05 * (len(self.plan.stage) + 1 - self.stage[:, None]))
        low[:, 6:8], high[:, 6:8] = thinnest * view.scale, fitting.LARGEST_RADIUS * side
        current = self.stage == number
        high[current, 6:8] = np.maximum(1.2 * view.length, low[current, 6:8])
        stray = np.where(current, stage.tint, fitting.DRIED_TINT)[:, None].astype(np.float32)
        low[:, 8:14], high[:, 8:14] = np.maximum(0, self.born_color - stray), np.minimum(1, self.born_color + stray)
        low[:, 14:], high[:, 14:] = fitting.ALPHA
        low[self.fixed], high[self.fixed], rate[self.fixed] = -np.inf, np.inf, 0
        return rate, low, high

    def move(self, found: np.ndarray, settle: float, bounds: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
        """One optimizer step of all strokes."""
        adam = Adam(0)
        adam.mean, adam.square, adam.age = self.mean, self.square, self.age
        adam.step(self.rows, found, settle, *bounds)

    def texture(self) -> Texture:
        return Texture.of((self.stage == 1).astype(np.int32), BRUSHES)

    def take_away_what_did_not_help(self) -> None:
        """Drop painted strokes that led away from their own aim when they were laid."""
        scale = min(1.0, JUDGED_SIDE / self.side)
        target = shrink(self.target, scale)
        size = target.shape[1::-1]
        aims = np.stack([*(cv2.resize(layer, size) for layer in self.layers), target])
        ground = self.ground if self.ground.ndim == 1 else shrink(self.ground, scale)
        canvas = np.ascontiguousarray(np.broadcast_to(ground, target.shape), np.float32)
        changes = error_changes(self.strokes(), canvas, aims, self.aims())
        self.take(np.flatnonzero((changes < 0) | self.fixed))

    def polish(self, shorter: float) -> None:
        """A few small steps for all, since some neighbors were taken away."""
        stage, number = self.plan.stage[-1], len(self.plan.stage) + 1
        view = _View(self, replace(stage, scale=1.0), shorter)
        bounds = self.bounds(stage, number, view)
        for _ in range(POLISH):
            _, found = self.slopes(view, OWN_AIM)
            self.move(found, fitting.SETTLE[1], bounds)

    def aims(self) -> np.ndarray:
        """For each stroke the layer it is judged by, or the picture, which comes after them."""
        layered = [i + 2 for i, stage in enumerate(self.plan.stage) if stage.aim == "layers"]
        return np.where(np.isin(self.stage, layered), self.region, len(self.scene)).astype(np.int32)

    def strokes(self, names: tuple[str, ...] | None = None) -> Strokes:
        height, width = self.target.shape[:2]
        arrays: dict[str, Any] = unpack(self.rows, self.side)
        return Strokes(
            **arrays,
            brush=(self.stage == 1).astype(np.int32),
            brushes=BRUSHES,
            stage=self.stage,
            region=self.region,
            stages=("ground", "drawing", *(stage.name for stage in self.plan.stage)),
            regions=names or tuple(map(str, range(len(self.scene)))),
            ground=self.ground,
            aspect=width / height,
        )


class _View:
    """The target, its regions and layers at the resolution of one stage."""

    def __init__(self, painter: _Painter, stage: Stage, shorter: float) -> None:
        wanted = min(1.0, max(stage.scale, fitting.SMALLEST_SIDE / painter.side))
        self.target = shrink(painter.target, wanted)
        height, width = self.target.shape[:2]
        self.scale = np.float32(width / painter.target.shape[1])
        self.length = stage.length * shorter * max(height, width)
        ground = painter.ground if painter.ground.ndim == 1 else shrink(painter.ground, wanted)
        self.canvas = np.ascontiguousarray(np.broadcast_to(ground, self.target.shape), np.float32)
        regions = painter.scene.regions.astype(np.float32)
        self.regions = cv2.resize(regions, (width, height), interpolation=cv2.INTER_NEAREST).astype(np.int32)
        self.layers = painter.layers
        self.found: dict[int, np.ndarray] = {}
        self.aims = np.stack([*(self.layer(k) for k in range(len(self.layers))), self.target])

    def layer(self, k: int) -> np.ndarray:
        """The picture as it stands when regions 0 to k are blocked in, without small things."""
        if k not in self.found:
            layer = cv2.resize(self.layers[k], self.regions.shape[::-1], interpolation=cv2.INTER_LINEAR)
            self.found[k] = blur(layer, max(0.5, 0.25 * self.length))
        return self.found[k]
