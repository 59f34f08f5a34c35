"""Painting under a plan: stages, regions in order, all strokes optimised together.

A stroke belongs to a stage and a region and keeps its place in the order. The optimizer looks at the
finished picture and, now and then, at the canvas as it stands right after each stroke, so that the
canvas on the way is painted for its own sake. Before the last stage and at the end, strokes that did not
bring the canvas nearer to their own aim when they were laid are taken away; the last stage has as many more.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np

from paintproc.config.plan import PREPARES, Plan, PlannedStage
from paintproc.process.drawing import draw_contours, under_layers, wash
from paintproc.scene.layers import Filler, fill, find_layers
from paintproc.scene.values import Scene
from paintproc.strokes.births import Birthplaces, blur, shrink
from paintproc.strokes.brushes import ROUND, dry_brush
from paintproc.strokes.fit import check_target
from paintproc.strokes.ops.arrays import StrokeArrays
from paintproc.strokes.ops.in_turn import lay_in_turn
from paintproc.strokes.optimize import (
    Descent,
    OwnAims,
    Painting,
    Settings,
    View,
    Work,
    optimize_stage,
    run_paintings,
)
from paintproc.strokes.values import Strokes

PAINT, DRY = 0, 1
"""Indices of the brushes: for paint, and for the drawing."""
BRUSHES = (ROUND, dry_brush())
JUDGED_SIDE = 512
"""Strokes are judged after a stage on a canvas of at most this size."""
OWN_SIDE = 256
"""While they are optimised, their own aims are looked at on a canvas of at most this size."""
HUMAN = Settings(move=0.25, dried_move=0.6, dried_tint=0.15, thicker=0.05, widest=1.2, own_weight=0.1, own_every=3)
"""How strokes are optimised under a plan; see `Settings`."""
DONE = 0.05
"""A region of a begun canvas is blocked in when it is this near to the blurred picture (L1)."""
LIGHTER, LIGHT_SIZE = 0.03, 0.02
"""How much lighter than its surroundings a light is; their size in canvas units."""


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
    device: str = "cpu",
    progress: Callable[[float], None] = lambda done: None,
) -> Strokes:
    """Paint `target` (sRGB [H, W, 3] in [0, 1]) with at most `count` strokes under `plan`.

    `canvas` [H, W, 3] is a begun canvas: it stays as it is where a region is blocked in already,
    and gets neither wash nor drawing. `names` are the regions' names; `filler` makes up what lies behind
    them. `device` is "cpu" or "cuda". Equal arguments give equal strokes. ValueError where shapes do not fit.
    """
    return run_paintings([painting(target, count, plan, scene, canvas, names, filler, seed, progress)], device)[0]


def paint_batch(
    targets: Sequence[np.ndarray],
    count: int,
    plan: Plan,
    scenes: Sequence[Scene],
    *,
    seed: int = 0,
    device: str = "cpu",
) -> list[Strokes]:
    """`paint` of several pictures with their scenes, which a GPU paints at once; each as if it were painted alone."""
    pairs = zip(targets, scenes, strict=True)
    return run_paintings([painting(target, count, plan, scene, seed=seed) for target, scene in pairs], device)


def painting(
    target: np.ndarray,
    count: int,
    plan: Plan,
    scene: Scene,
    canvas: np.ndarray | None = None,
    names: tuple[str, ...] | None = None,
    filler: Filler = fill,
    seed: int = 0,
    progress: Callable[[float], None] = lambda done: None,
) -> Painting:
    """`paint` as a generator of descents, for `run_paintings`."""
    target = check_target(target, count, canvas)
    if scene.regions.shape != target.shape[:2]:
        raise ValueError(f"the scene is {scene.regions.shape}, the target {target.shape}")
    blank = np.array(plan.blank, np.float32)
    ground = blank if canvas is None else np.clip(np.ascontiguousarray(canvas, np.float32), 0, 1)
    painter = _Painter(Work(target, ground, plan.stage, count, seed, BRUSHES), scene, plan, filler)
    efforts = np.cumsum([1e-9, *(0 if s.role in PREPARES else s.steps * s.scale**2 for s in plan.stage)])
    for number in range(len(plan.stage)):
        yield from painter.paint_stage(number)
        progress(float(efforts[number + 1] / efforts[-1]))
    return painter.work.finished(names or tuple(f"region {k}" for k in range(len(scene))))


class _Painter:
    """A painting under a plan: the strokes so far, and what their scene and plan ask of them."""

    def __init__(self, work: Work, scene: Scene, plan: Plan, filler: Filler) -> None:
        self.work, self.scene, self.stages = work, scene, plan.stage
        under = under_layers(work.target, plan.stage, work.ground)
        self.layers = find_layers(work.target, scene, under, plan.behind, filler)
        self.begun = work.ground.ndim == 3
        self.sized_aims: dict[tuple[int, ...], np.ndarray] = {}
        self.layered = np.array([stage.aim == "layers" for stage in plan.stage])

    def paint_stage(self, number: int) -> Iterator[Descent]:
        """Lay a stage's strokes, region by region, and optimise all strokes."""
        stage, work = self.stages[number], self.work
        if stage.role in PREPARES:
            if not self.begun:
                self.prepare(number)
            return
        births = work.share(number)
        view = work.view(stage.scale)
        work.strokes.scale(view.scale)
        turn = self.turn(stage)
        regions = self.regions(view)
        self.give_birth(number, births, turn, view, regions)
        rank = np.empty(len(turn), int)
        rank[turn] = np.arange(len(turn))

        def arrange() -> None:
            place = np.where(work.stage == number, rank[work.region], 0)
            work.take(np.lexsort((np.arange(len(place)), place, work.stage)))

        settings = replace(
            HUMAN,
            own_aims=self.own_aims(view),
            rebirths=stage.aim == "picture" and stage.role != "lights",
            arrange=arrange,
            region_of=lambda born: _region_of(born, regions),
        )
        yield from optimize_stage(work, number, view, births, settings)
        work.strokes.scale(1 / view.scale)
        if number >= len(self.stages) - 2:
            self.take_away_what_did_not_help()

    def prepare(self, number: int) -> None:
        """Lay the wash or the drawing; neither is optimised."""
        stage, work = self.stages[number], self.work
        if stage.role == "ground":
            work.add(wash(work.target, stage, work.random)[: work.count], number, fixed=True)
        else:
            strokes, regions = draw_contours(work.target, self.scene, stage, work.share(number))
            work.add(strokes, number, regions, DRY, fixed=True)

    def turn(self, stage: PlannedStage) -> np.ndarray:
        """The regions in the order in which the stage paints them."""
        return (
            np.argsort(self.scene.weight, kind="stable") if stage.order == "focus-last" else np.arange(len(self.scene))
        )

    def regions(self, view: View) -> np.ndarray:
        """The scene's regions [h, w] at the size of `view`."""
        size = view.target.shape[1::-1]
        return np.asarray(cv2.resize(self.scene.regions, size, interpolation=cv2.INTER_NEAREST))

    def own_aims(self, view: View) -> Callable[[], OwnAims]:
        """What gives the strokes' own aims at the time of asking, for strokes in pixels of `view`."""
        target, canvas = (shrink(picture, min(1.0, OWN_SIDE / view.side)) for picture in (view.target, view.canvas))
        aims, ratio = self.aims(target), target.shape[1] / view.target.shape[1]
        canvas = self.work.draw_fixed(canvas, ratio)
        return lambda: OwnAims(aims, canvas, self.aim_of()[self.work.first_free() :], ratio)

    def aims(self, target: np.ndarray) -> np.ndarray:
        """The layers and, after them, the picture [R + 1, h, w, 3], at the size of `target`; made once a size."""
        if target.shape not in self.sized_aims:
            aims = np.empty((len(self.layers) + 1, *target.shape), np.float32)
            for layer, aim in zip(self.layers, aims, strict=False):
                cv2.resize(layer, target.shape[1::-1], dst=aim)
            aims[-1] = target
            self.sized_aims[target.shape] = aims
        return self.sized_aims[target.shape]

    def aim_of(self) -> np.ndarray:
        """For each stroke the layer it is judged by, or the picture, which comes after them."""
        return np.where(self.layered[self.work.stage], self.work.region, len(self.scene)).astype(np.int32)

    def give_birth(self, number: int, births: int, turn: np.ndarray, view: View, regions: np.ndarray) -> None:
        """Lay the stage's strokes, `births` in all, region by region in `turn`."""
        stage, work = self.stages[number], self.work
        length = work.length(number, view)
        picture = work.draw(view)
        layered = stage.aim == "layers"
        wheres, masses = (self.where_layered if layered else self.where_wrong)(stage, picture, view, regions, length)
        if not masses.sum() or not births:
            return
        shares = np.diff(np.rint(np.cumsum([0, *(masses[turn] / masses.sum())]) * births)).astype(int)
        places = None if layered else Birthplaces(view.target, picture, length)
        for k, share in zip(turn.tolist(), shares.tolist(), strict=True):
            if share:
                here = places or Birthplaces(self.layer(k, view, length), None, length)
                work.add(here.draw(share, work.random, wheres[k]), number, k, PAINT)

    def layer(self, k: int, view: View, length: float) -> np.ndarray:
        """The picture as it stands when regions 0 to k are painted, without small things."""
        return blur(cv2.resize(self.layers[k], view.target.shape[1::-1]), max(0.5, 0.25 * length))

    def where_layered(
        self, stage: PlannedStage, picture: np.ndarray, view: View, regions: np.ndarray, length: float
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Where strokes of each region may be born [h, w], and how many of them, relatively: by its size.

        They run on behind what is nearer. What a begun canvas has blocked in already gets none.
        """
        reach = np.ones((2 * round(stage.behind * view.side) + 1,) * 2, np.uint8)
        gap = np.abs(blur(view.target, 2 * length) - blur(picture, 2 * length)).mean(2) if self.begun else None
        wheres, masses = [], np.zeros(len(self.scene))
        for k in range(len(self.scene)):
            inside = (regions == k).astype(np.float32)
            wheres.append(cv2.dilate(inside, reach) * (regions >= k))
            if gap is None or float((gap * inside).sum()) >= DONE * float(inside.sum()):
                masses[k] = float(np.sqrt(inside.mean())) + 0.02
        return wheres, masses

    def where_wrong(
        self, stage: PlannedStage, picture: np.ndarray, view: View, regions: np.ndarray, length: float
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Where strokes of each region may be born [h, w], and how many of them, relatively: by its error."""
        error = np.abs(view.target - picture).sum(2)
        allowed = np.ones_like(error)
        if stage.role == "lights":
            gray = view.target.mean(2)
            allowed = np.maximum(0, gray - blur(gray, LIGHT_SIZE * view.side) - LIGHTER)
        density = blur(error * allowed, length / 2) ** 2
        wheres = [(regions == k) * allowed for k in range(len(self.scene))]
        return wheres, np.array([float(density[where > 0].sum()) for where in wheres])

    def take_away_what_did_not_help(self) -> None:
        """Drop painted strokes that led away from their own aim when they were laid."""
        work = self.work
        scale = min(1.0, JUDGED_SIDE / work.side)
        target = shrink(work.target, scale)
        ground = work.ground if work.ground.ndim == 1 else shrink(work.ground, scale)
        canvas = np.ascontiguousarray(np.broadcast_to(ground, target.shape), np.float32)
        strokes = work.strokes.copy().scale(target.shape[1] / work.target.shape[1])
        change = lay_in_turn(strokes, work.brushes(), canvas, self.aims(target), self.aim_of()).change
        work.take(np.flatnonzero((change < 0) | work.fixed))


def _region_of(strokes: StrokeArrays, regions: np.ndarray) -> np.ndarray:
    """The region [N] in which the middle control point of each stroke lies."""
    height, width = regions.shape
    x, y = strokes.points[:, 1].astype(int).T
    return regions[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
