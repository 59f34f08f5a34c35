"""The one optimizer: strokes that are moved by Adam within bounds, born, and born again.

`fit`, the plans, `learn-to-paint` and `stylized` supply what differs: their loss, where strokes are
born, and within which bounds they move. A painting is written as a generator that yields a
`Descent` whenever its strokes are to be improved; `run_paintings` carries these out, on the CPU one
by one, on a GPU for many pictures at once.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from paintproc.config.plan import PlannedStage
from paintproc.strokes.adam import Adam, Bounds
from paintproc.strokes.births import Birthplaces, shrink
from paintproc.strokes.brushes import ROUND
from paintproc.strokes.ops.arrays import Brushes, StrokeArrays, join
from paintproc.strokes.ops.cpu import Composited, composite
from paintproc.strokes.ops.in_turn import lay_in_turn
from paintproc.strokes.ops.kernels import COLUMNS
from paintproc.strokes.values import Strokes

LENGTH_COUNT = 500
"""With more strokes than this they become shorter and thinner, by the fourth root."""
REBIRTHS = (0.2, 0.4, 0.6)
"""When strokes are born again, as parts of a stage's steps."""
REBORN = 0.2
"""How many of a stage's strokes each time."""
REBORN_LENGTH = 0.7
"""Their size against the stage's."""
FEWEST_STEPS = 5
"""A stage with fewer optimizer steps has no rebirths."""
TINT = 0.02
"""Optimizer step for color and opacity."""
SETTLE = (0.6, 0.1)
"""After this part of a stage the steps shrink, in the end to this factor."""
ALPHA = (0.6, 0.98)
"""Range of opacity: paint covers, and one layer is never quite opaque."""
SMALLEST_RADIUS = 0.6
"""In pixels of the target."""
LARGEST_RADIUS = 0.25
"""In canvas units."""
SMALLEST_SIDE = 24
"""Stages are not optimised on pictures smaller than this."""
MOST_PIXELS = 512 * 512
"""Larger pictures are optimised at this size, or at ..."""
PIXELS_EACH = 200
"""... so many pixels a stroke, where that is more."""


@dataclass(frozen=True, eq=False)
class OwnAims:
    """What each stroke is to bring the canvas nearer to at the moment it is laid.

    `aims` [A, h, w, 3] and `canvas` [h, w, 3] may be smaller than the picture at work, `ratio` times its
    size; `aim_of` [N] says which of them counts for a stroke.
    """

    aims: np.ndarray
    canvas: np.ndarray
    aim_of: np.ndarray
    ratio: float

    def gradients(self, strokes: StrokeArrays, brushes: Brushes) -> np.ndarray:
        """Derivatives [N, 16] of each stroke's own error, as if measured at the size of the picture at work."""
        found = lay_in_turn(strokes.copy().scale(self.ratio), brushes, self.canvas, self.aims, self.aim_of)
        gradients = found.packed[:, :COLUMNS] * np.float32(1 / self.ratio**2)
        gradients[:, :8] *= np.float32(self.ratio)
        return gradients


@dataclass(eq=False)
class Descent:
    """Optimizer steps that the strokes of one picture are to take: `strokes` and `adam` are changed in place.

    factors    for each step a factor on its size
    own        for each step the weight of the strokes' own aims; 0: they are not looked at
    evaluate   whether the picture and its gradients after the last step are wanted
    """

    strokes: StrokeArrays
    adam: Adam
    bounds: Bounds
    brushes: Brushes
    canvas: np.ndarray
    target: np.ndarray
    factors: Sequence[float]
    own: Sequence[float] = ()
    own_aims: OwnAims | None = None
    evaluate: bool = False

    def run(self) -> Composited | None:
        """Take the steps on the CPU."""
        for step, factor in enumerate(self.factors):
            gradients = composite(self.strokes, self.brushes, self.canvas, target=self.target).gradients
            if self.own_aims is not None and self.own[step]:
                added = self.own_aims.gradients(self.strokes, self.brushes)
                gradients.packed[:, :COLUMNS] += np.float32(self.own[step]) * added
            self.adam.step(self.strokes, gradients, self.bounds, factor)
        return composite(self.strokes, self.brushes, self.canvas, target=self.target) if self.evaluate else None


Painting = Generator[Descent, Composited | None, Strokes]


def run_paintings(paintings: Sequence[Painting], device: str = "cpu") -> list[Strokes]:
    """Carry out the descents that paintings ask for, until each has returned its strokes.

    On the CPU one painting is finished after the other. On "cuda" the descents of all paintings that wait for one are
    run together.
    """
    if device == "cpu":
        return [_run_alone(painting) for painting in paintings]
    from paintproc.strokes.ops.cuda import run_descents

    results: dict[int, Strokes] = {}
    answers: dict[int, Composited | None] = dict.fromkeys(range(len(paintings)))
    while len(results) < len(paintings):
        waiting: dict[int, Descent] = {}
        for k, answer in answers.items():
            try:
                waiting[k] = paintings[k].send(answer)
            except StopIteration as finished:
                results[k] = finished.value
        if waiting:
            answers = dict(zip(waiting, run_descents(list(waiting.values()), device), strict=True))
    return [results[k] for k in range(len(paintings))]


def _run_alone(painting: Painting) -> Strokes:
    answer = None
    while True:
        try:
            descent = painting.send(answer)
        except StopIteration as finished:
            return finished.value
        answer = descent.run()


@dataclass(eq=False)
class View:
    """The picture at work, at `scale` times the target's size.

    `canvas` [H, W, 3] is the ground under all strokes, `base` the same with the fixed strokes on it.
    """

    target: np.ndarray
    canvas: np.ndarray
    scale: float
    base: np.ndarray

    @property
    def side(self) -> int:
        return max(self.target.shape[:2])


class Work:
    """The strokes of one picture while they are painted, in pixels of the view at work, and what is known of each.

    `target` and `ground` are the picture and what lies under the strokes, at the largest size at which they are
    optimised; `under` is the ground as it was given.

    `born` [N, 2, 3] is the color from which a stroke may stray so far and no farther, `fixed` [N] whether it
    stays as it is.
    """

    def __init__(
        self,
        target: np.ndarray,
        ground: np.ndarray,
        stages: Sequence[PlannedStage],
        count: int,
        seed: int,
        brushes: tuple[np.ndarray, ...] = (ROUND,),
    ) -> None:
        height, width = target.shape[:2]
        self.aspect = width / height
        largest = min(1.0, (max(MOST_PIXELS, PIXELS_EACH * count) / (height * width)) ** 0.5)
        self.target, self.maps = shrink(target, largest), brushes
        self.ground = ground if ground.ndim == 1 else shrink(ground, largest)
        self.under = ground
        self.stages, self.count = stages, count
        self.random = np.random.Generator(np.random.Philox(seed))
        self.side = max(self.target.shape[:2])
        self.thinnest = SMALLEST_RADIUS * self.target.shape[1] / width
        self.shorter = min(1.0, (LENGTH_COUNT / max(count, 1)) ** 0.25)
        self.strokes, self.adam = StrokeArrays.zeros(0), Adam(0)
        self.stage, self.region, self.brush = (np.zeros(0, np.int32) for _ in range(3))
        self.born, self.fixed = np.zeros((0, 2, 3), np.float32), np.zeros(0, bool)

    def __len__(self) -> int:
        return len(self.strokes)

    def view(self, scale: float) -> View:
        """The picture at `scale` times the size of `target`."""
        wanted = min(1.0, max(scale, SMALLEST_SIDE / self.side))
        target = shrink(self.target, wanted)
        ground = self.ground if self.ground.ndim == 1 else shrink(self.ground, wanted)
        canvas = np.ascontiguousarray(np.broadcast_to(ground, target.shape), np.float32)
        return View(target, canvas, target.shape[1] / self.target.shape[1], canvas)

    def add(
        self, strokes: StrokeArrays, stage: int, region: np.ndarray | int = 0, brush: int = 0, fixed: bool = False
    ) -> None:
        """Lay `strokes` after those that are there."""
        count = len(strokes)
        self.strokes = join([self.strokes, strokes])
        self.adam.grow(count)
        self.stage = np.concatenate([self.stage, np.full(count, stage, np.int32)])
        self.region = np.concatenate([self.region, np.broadcast_to(np.asarray(region, np.int32), count)])
        self.brush = np.concatenate([self.brush, np.full(count, brush, np.int32)])
        self.born = np.concatenate([self.born, strokes.color])
        self.fixed = np.concatenate([self.fixed, np.full(count, fixed)])

    def take(self, index: np.ndarray) -> None:
        """Keep the strokes at `index`, in this order."""
        self.strokes = self.strokes[index]
        self.adam.take(index)
        for name in ("stage", "region", "brush", "born", "fixed"):
            setattr(self, name, getattr(self, name)[index])

    def brushes(self) -> Brushes:
        return Brushes.gather(self.brush, self.maps)

    def draw(self, view: View) -> np.ndarray:
        """The picture [H, W, 3] of all strokes so far, which are in pixels of `view`."""
        return composite(self.strokes, self.brushes(), view.canvas).picture

    def first_free(self) -> int:
        """How many strokes at the beginning are fixed: they are drawn once, as the canvas under the others."""
        return int(np.argmin(self.fixed)) if not self.fixed.all() else len(self)

    def draw_fixed(self, canvas: np.ndarray, ratio: float) -> np.ndarray:
        """`canvas` [h, w, 3], `ratio` times the size of the view at work, with the fixed strokes at the beginning."""
        begin = self.first_free()
        brushes = Brushes.gather(self.brush[:begin], self.maps)
        return composite(self.strokes[:begin].copy().scale(ratio), brushes, canvas).picture

    def descent(
        self, number: int, view: View, settings: "Settings", factors: Sequence[float], own: Sequence[float]
    ) -> Descent:
        """Steps of all strokes that are not fixed; `view.base` holds those that are."""
        begin = self.first_free()
        return Descent(
            strokes=self.strokes[begin:],
            adam=self.adam.after(begin),
            bounds=self.bounds(number, view, settings).after(begin),
            brushes=Brushes.gather(self.brush[begin:], self.maps),
            canvas=view.base,
            target=view.target,
            factors=factors,
            own=own,
            own_aims=settings.own_aims(),
        )

    def share(self, number: int) -> int:
        """Strokes for stage `number`: its share of those that are left, against the shares still to come."""
        to_come = sum(stage.share for stage in self.stages[number:])
        return round(self.stages[number].share / to_come * max(0, self.count - len(self))) if to_come else 0

    def length(self, number: int, view: View) -> float:
        """Typical half length of the strokes of stage `number`, in pixels of `view`."""
        return self.stages[number].length * self.shorter * view.side

    def bounds(self, number: int, view: View, settings: "Settings") -> Bounds:
        """Steps and bounds of all strokes while stage `number` is painted.

        Strokes of earlier stages have dried: they move less, and keep near to their color.
        """
        length = self.length(number, view)
        bounds = Bounds.empty(len(self))
        ago = (number - self.stage).astype(np.float32)
        move = length * settings.move * np.float32(settings.dried_move) ** ago
        bounds.rate.points[:], bounds.rate.radius[:] = move[:, None, None], move[:, None] / 2
        bounds.rate.color[:], bounds.rate.alpha[:] = TINT, TINT
        bounds.low.points[:], bounds.high.points[:] = -view.side, 2 * view.side
        thinnest = self.thinnest * view.scale * (1 + settings.thicker * (len(self.stages) - 1 - self.stage))
        bounds.low.radius[:] = thinnest[:, None]
        bounds.high.radius[:] = np.maximum(thinnest, LARGEST_RADIUS * view.side)[:, None]
        current = self.stage == number
        at_most = np.maximum(thinnest, settings.widest * length)[:, None]
        bounds.high.radius[current] = np.minimum(bounds.high.radius, at_most)[current]
        stray = np.where(current, self.stages[number].tint, settings.dried_tint).astype(np.float32)[:, None, None]
        bounds.low.color[:], bounds.high.color[:] = np.maximum(0, self.born - stray), np.minimum(1, self.born + stray)
        bounds.low.alpha[:], bounds.high.alpha[:] = ALPHA
        for part, value in ((bounds.low, -np.inf), (bounds.high, np.inf), (bounds.rate, 0)):
            part.packed[self.fixed] = value
        return bounds

    def dry(self, number: int) -> None:
        """The strokes of stage `number` keep near to the color they have now."""
        now = self.stage == number
        self.born[now] = self.strokes.color[now]

    def least_useful(self, removal: np.ndarray, count: int) -> np.ndarray:
        """The `count` strokes whose removal costs least, of those that are not fixed."""
        return np.argsort(np.where(self.fixed, np.inf, removal), kind="stable")[: min(count, int((~self.fixed).sum()))]

    def finished(self, regions: tuple[str, ...] = ("picture",)) -> Strokes:
        fields: dict[str, Any] = self.strokes.as_fields(self.side)
        return Strokes(
            **fields,
            brush=self.brush,
            brushes=self.maps,
            stage=self.stage,
            region=self.region,
            stages=tuple(planned.stage for planned in self.stages),
            regions=regions,
            ground=self.under,
            aspect=self.aspect,
        )


@dataclass(frozen=True, eq=False)
class Settings:
    """What a way of painting asks of `optimize_stage`, beside the stage itself.

    move        optimizer step for points against the stage's stroke length; half of it for radii
    dried_move  factor on the steps of a stroke for every stage that came after its own
    dried_tint  how far a color may stray from what it was when its stage ended
    thicker     the last stage may paint with the thinnest brush; each stage before it is thicker by
                this part of its radius
    widest      most radius of the stage's own strokes, against their length
    own_weight  how much the strokes' own aims count against the finished picture
    own_every   they are looked at every so many steps, and count as much more
    rebirths    whether strokes are born again
    """

    move: float = 0.2
    dried_move: float = 0.4
    dried_tint: float = 0.1
    thicker: float = 0.0
    widest: float = np.inf
    own_weight: float = 0.0
    own_every: int = 1
    rebirths: bool = True
    own_aims: Callable[[], OwnAims | None] = field(default=lambda: None)
    """Made anew when strokes were born again, since it knows the aim of each."""
    arrange: Callable[[], None] = field(default=lambda: None)
    """Puts strokes that were born again into their place in the order."""
    region_of: Callable[[StrokeArrays], np.ndarray | int] = field(default=lambda strokes: 0)


def optimize_stage(work: Work, number: int, view: View, births: int, settings: Settings) -> Iterator[Descent]:
    """Improve all strokes together while stage `number` is painted; its strokes are laid already.

    Now and then the strokes that matter least, of any stage, are taken away and born again where the
    canvas is wrong. A generator of descents; see `run_paintings`.
    """
    work.adam = Adam(len(work))
    view.base = work.draw_fixed(view.canvas, 1)
    steps = work.stages[number].steps
    ends = [round(steps * part) for part in REBIRTHS] if settings.rebirths and steps >= FEWEST_STEPS else []
    done = 0
    for end in [*ends, steps]:
        # a look at the picture before strokes are born again costs as much as a step
        taken = range(done, end if end == steps else end - 1)
        every, weight = settings.own_every, settings.own_weight
        own = [every * weight if step % every == 0 else 0.0 for step in taken]
        descent = work.descent(number, view, settings, [_settled(step / steps) for step in taken], own)
        descent.evaluate = end < steps
        found = yield descent
        done = end
        if found is not None:
            removal = np.concatenate([np.full(work.first_free(), np.inf), found.removal])
            dead = work.least_useful(removal, int(births * REBORN))
            work.take(np.setdiff1d(np.arange(len(work)), dead))
            places = Birthplaces(view.target, found.picture, work.length(number, view) * REBORN_LENGTH)
            born = places.draw(len(dead), work.random)
            work.add(born, number, settings.region_of(born))
            settings.arrange()
    work.dry(number)


def _settled(part: float) -> float:
    """Factor on the steps after this part of a stage: 1, and from `SETTLE` on ever less."""
    begin, least = SETTLE
    return 1.0 if part < begin else 1 + (least - 1) * (part - begin) / (1 - begin)
