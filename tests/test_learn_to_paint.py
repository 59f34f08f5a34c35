"""The process of "Learning to Paint": its steps, its strokes, and that every step helps."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from conftest import EXAMPLES
from test_rasterize import BRISTLES, ROUND, random_strokes

from paintproc.config.plan import BLANK
from paintproc.media import load_picture
from paintproc.strokes.ops.arrays import Brushes, StrokeArrays
from paintproc.strokes.ops.in_turn import error_changes, lay_alone
from paintproc.strokes.rasterize import rasterize, squared_error_gradients
from paintproc.strokes.values import Strokes
from paintproc.synth.learn_to_paint import (
    ALPHA,
    BUNDLE,
    KEPT,
    STAGES,
    View,
    choose,
    draw,
    improve,
    learn_to_paint,
    plan_steps,
    polish,
    propose,
    recolor,
    set_up,
)  # fmt: skip

ARRAYS = ("points", "radius", "color", "alpha", "stage")
STEPS, DOWN, ACROSS = 3, 3, 4
COUNT = STEPS * BUNDLE * (1 + DOWN * ACROSS)


@pytest.fixture(scope="module")
def target() -> np.ndarray:
    """75 x 96 pixels: room for 3 x 4 patches."""
    path = next(p for p in EXAMPLES if p.stem == "still-life")
    return load_picture(path, max_side=96).pixels.astype(np.float32) / 255


@pytest.fixture(scope="module")
def painted(target) -> tuple[Strokes, list[int]]:
    """Strokes, and how many are laid after 0, 1, 2 ... steps."""
    ends = [0]
    strokes = learn_to_paint(target, COUNT, progress=lambda done: ends.append(round(done * COUNT)))
    return strokes, ends[:-1]


@pytest.fixture(scope="module")
def strokes(painted) -> Strokes:
    return painted[0]


@pytest.fixture
def view(target) -> View:
    """The blank canvas and the patches."""
    return set_up(target, StrokeArrays.zeros(0), 96, (DOWN, ACROSS))


def laid_alone(strokes: StrokeArrays, view: View):
    return lay_alone(strokes, Brushes.round(len(strokes)), view.canvas, view.target)


def squared_error(strokes: Strokes, target: np.ndarray) -> float:
    return float(np.square(rasterize(strokes, size=target.shape[:2]).astype(float) - target).sum())


def patch_of(strokes: Strokes, target: np.ndarray) -> np.ndarray:
    """In which patch, row by row, the middle of each curve lies [N]; a middle outside has none."""
    height, width = target.shape[:2]
    middle = (strokes.points[:, 0] + 2 * strokes.points[:, 1] + strokes.points[:, 2]) / 4 * max(height, width)
    x, y = np.floor(middle[:, 0] / width * ACROSS).astype(int), np.floor(middle[:, 1] / height * DOWN).astype(int)
    outside = (x < 0) | (x >= ACROSS) | (y < 0) | (y >= DOWN)
    return np.where(outside, -1, y * ACROSS + x)


def test_half_of_the_steps_are_over_the_whole_canvas(strokes, target):
    assert plan_steps(COUNT, *target.shape[:2]) == (STEPS, DOWN, ACROSS)
    assert len(strokes) == COUNT
    assert (strokes.stage == 0).sum() == STEPS * BUNDLE
    assert strokes.stages == STAGES
    assert [stage.name for stage in STAGES] == ["whole canvas", "patches"]
    assert STAGES[1].caption("the picture") == "work patch by patch on the picture"
    assert (np.diff(strokes.stage) >= 0).all()
    assert strokes.regions == ("the picture",)
    assert strokes.ground.tolist() == np.array(BLANK, np.float32).tolist()


def test_every_step_lays_five_strokes_in_every_patch(painted, target):
    """Patches go row by row; the second strokes of all patches follow the first of all.

    A stroke that would do harm may be missing, here and there.
    """
    strokes, ends = painted
    patches = patch_of(strokes, target)
    assert ends[: STEPS + 1] == [0, 5, 10, 15]
    missing = 0
    for begin, end in itertools.pairwise(ends[STEPS : 2 * STEPS + 1]):
        step = patches[begin:end]
        laid = np.bincount(step, minlength=DOWN * ACROSS)
        assert len(laid) == DOWN * ACROSS
        assert laid.max() <= BUNDLE
        assert (np.diff(step) <= 0).sum() < BUNDLE
        missing += (BUNDLE - laid).sum()
    assert missing <= 0.03 * COUNT


def test_the_error_falls_with_every_step(painted, target):
    strokes, ends = painted
    errors = [squared_error(strokes[:end], target) for end in ends]
    assert (np.diff(errors) < 0).all()
    assert errors[STEPS] < errors[0] / 10
    assert errors[-1] < errors[STEPS] / 3


def test_every_stroke_helps(strokes, target):
    canvas = strokes.ground_canvas(*target.shape[:2])
    changes = error_changes(strokes, canvas, target[None], np.zeros(len(strokes), int))
    assert changes.max() < 1e-4


def test_the_strokes_that_gain_most_come_first(painted, view, target):
    """Over all patches: when they are chosen, each on the canvas with those before it, and when they are laid."""
    _, patch, gain = choose(view, np.random.default_rng(0))
    assert patch.tolist() == BUNDLE * list(range(DOWN * ACROSS))
    gains = gain.reshape(BUNDLE, -1).sum(1)
    assert gains[0] > 2 * gains[1] > 4 * gains[-1]
    strokes, ends = painted
    canvas = strokes.ground_canvas(*target.shape[:2])
    changes = error_changes(strokes, canvas, target[None], np.zeros(len(strokes), int))
    first = sum(changes[begin : begin + DOWN * ACROSS].sum() for begin in ends[STEPS : 2 * STEPS])
    last = sum(changes[end - DOWN * ACROSS : end].sum() for end in ends[STEPS + 1 : 2 * STEPS + 1])
    assert first < 1.3 * last < 0


def test_the_best_candidates_are_taken_and_improved(view):
    random = np.random.default_rng(0)
    candidates, patch = propose(view, view.canvas, random)
    as_born = recolor(candidates, laid_alone(candidates, view))[1]
    most = [as_born[patch == k].max() for k in range(DOWN * ACROSS)]
    likely = np.concatenate([np.flatnonzero(patch == k)[np.argsort(-as_born[patch == k])[:KEPT]] for k in set(patch)])
    _, improved = improve(view, view.canvas, candidates[likely], patch[likely])
    best = [improved[patch[likely] == k].max() for k in range(DOWN * ACROSS)]
    chosen, where, gain = choose(view, np.random.default_rng(0))
    assert gain[: len(best)] == pytest.approx(best, rel=0.05)
    assert where[: len(most)].tolist() == list(range(len(most)))
    assert (gain[: len(most)] >= most).all()
    assert (gain[: len(most)] > 1.02 * np.array(most)).mean() > 0.5
    before = np.square(draw(chosen, view.canvas) - view.target).sum()
    after = np.square(draw(polish(view, chosen, where), view.canvas) - view.target).sum()
    assert after < 0.95 * before


def test_candidates_are_born_where_the_canvas_is_wrong(view):
    canvas = view.target.copy()
    canvas[:, 10:15] = 1 - canvas[:, 10:15]
    candidates, patch = propose(view, canvas, np.random.default_rng(0))
    x = candidates.points[patch % ACROSS == 0, 1, 0]
    assert ((x > 4) & (x < 21)).mean() > 0.95
    assert ((x > 8) & (x < 17)).mean() > 0.6


def test_the_best_color_is_the_best(view):
    candidates = propose(view, view.canvas, np.random.default_rng(0))[0][::100]
    better, gain = recolor(candidates, laid_alone(candidates, view))
    assert np.array_equal(better.color[:, 0], better.color[:, 1])
    for tint in (-0.02, 0.0, 0.02):
        tinted = better.copy()
        tinted.color[:] = np.clip(tinted.color + tint, 0, 1)
        took = -2 * laid_alone(tinted, view).change
        assert (took <= gain + 1e-3).all()
        assert (took == pytest.approx(gain, abs=1e-3)) == (tint == 0)


def test_it_goes_from_broad_to_fine(strokes):
    widths = [np.median(strokes.radius[strokes.stage == k]) for k in range(2)]
    assert widths[0] > 2 * widths[1]


def test_strokes_are_like_those_of_the_paper(strokes):
    """Semi-transparent, of one color, at most as wide as a quarter of the canvas or patch."""
    assert strokes.alpha.min() >= np.float32(ALPHA[0]) > 0
    assert strokes.alpha.max() <= np.float32(ALPHA[1]) < 1
    assert np.ptp(strokes.alpha) > 0.3
    assert (strokes.alpha[:, 0] != strokes.alpha[:, 1]).any()
    assert (strokes.radius[:, 0] != strokes.radius[:, 1]).any()
    assert np.array_equal(strokes.color[:, 0], strokes.color[:, 1])
    assert strokes.radius.max() <= 0.2501
    assert strokes.radius[strokes.stage == 1].max() <= 0.2501 * max(1 / ACROSS, 1 / strokes.aspect / DOWN)
    start, control, end = strokes.points.transpose(1, 0, 2)
    off, half = np.linalg.norm(control - (start + end) / 2, axis=1), np.linalg.norm(end - start, axis=1) / 2
    assert (off <= 1.001 * half + 1e-5).all()
    assert (off > 0.1 * half).mean() > 0.3


def test_they_beat_random_strokes(strokes, target):
    """Also random strokes in the target's own colors, as wide as these."""
    random = np.random.default_rng(0)
    height, width = target.shape[:2]
    x, y = random.integers(0, width, COUNT), random.integers(0, height, COUNT)
    places = np.stack([x, y], 1) / max(height, width)
    rows = random.permutation(COUNT)
    points = strokes.points[rows] + (places - strokes.points[rows][:, 1])[:, None]
    others = Strokes(
        points=points, radius=strokes.radius, color=np.repeat(target[y, x][:, None], 2, 1), alpha=strokes.alpha,
        ground=strokes.ground, aspect=strokes.aspect,
    )  # fmt: skip
    assert squared_error(strokes, target) < squared_error(others, target) / 5


def test_equal_arguments_give_equal_strokes(target, monkeypatch):
    """Whatever the number of threads."""
    painted = []
    for seed, threads in ((4, "1"), (4, "2"), (5, "2")):
        monkeypatch.setenv("PAINTPROC_THREADS", threads)
        painted.append(learn_to_paint(target, 80, seed=seed))
    first, second, other = painted
    for name in ARRAYS:
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()
    assert not np.array_equal(first.points, other.points)


@pytest.mark.parametrize("count", [0, 1, 3, 7, 20, 47])
def test_any_number(target, count):
    strokes = learn_to_paint(target, count)
    assert len(strokes) == count
    if count > 2 * BUNDLE:
        assert np.unique(strokes.stage).tolist() == [0, 1]


def test_the_grid_is_coarser_for_little():
    assert plan_steps(510, 512, 512) == (6, 4, 4)
    assert plan_steps(500, 512, 400) == (6, 4, 4)
    assert plan_steps(200, 512, 512) == (8, 2, 2)
    assert plan_steps(20, 512, 512) == (2, 1, 1)
    assert plan_steps(500, 60, 512) == (12, 2, 4)
    assert plan_steps(100, 7, 300)[1:] == (1, 4)
    assert plan_steps(0, 9, 9) == (0, 1, 1)


@pytest.mark.parametrize("shape", [(1, 1), (1, 90), (90, 1), (2, 3), (7, 300)])
def test_any_size(shape):
    target = np.random.default_rng(0).random((*shape, 3)).astype(np.float32)
    strokes = learn_to_paint(target, 40)
    assert 0 < len(strokes) <= 40
    errors = [squared_error(strokes[:count], target) for count in range(len(strokes) + 1)]
    assert (np.diff(errors) < 1e-3).all()
    assert errors[-1] < 0.8 * errors[0]


def test_a_plain_picture_is_left_plain():
    target = np.full((32, 48, 3), 0.3, np.float32)
    strokes = learn_to_paint(target, 30)
    assert np.abs(rasterize(strokes, size=(32, 48)) - target).max() < 0.02
    blank = np.broadcast_to(np.array(BLANK, np.float32), (32, 48, 3))
    assert len(learn_to_paint(blank, 30)) == 0


def test_progress_runs_to_1(target):
    seen: list[float] = []
    learn_to_paint(target, 60, progress=seen.append)
    assert len(seen) > 4
    assert seen == sorted(seen)
    assert 0 < seen[0] < 0.2
    assert seen[-1] == 1


def test_bad_arguments_are_refused(target):
    with pytest.raises(ValueError, match="target"):
        learn_to_paint(target[..., 0], 5)
    with pytest.raises(ValueError, match="target"):
        learn_to_paint(target[:0], 5)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        learn_to_paint(255 * target, 5)
    with pytest.raises(ValueError, match="negative"):
        learn_to_paint(target, -1)


def test_each_stroke_laid_alone_sees_the_canvas_as_it_was():
    strokes = replace(random_strokes(12, seed=2, size=0.1, brushes=(ROUND, BRISTLES)), aspect=60 / 50)
    random = np.random.default_rng(0)
    canvas, aim = random.random((2, 50, 60, 3)).astype(np.float32)
    found = lay_alone(StrokeArrays.of(strokes, 60), Brushes.gather(strokes.brush, strokes.brushes), canvas, aim)
    for i in range(12):
        after, alone = squared_error_gradients(strokes[i : i + 1], canvas, aim)
        assert found.points[i] * 60 == pytest.approx(alone.points[0], rel=2e-3, abs=2e-2)
        assert found.color[i] == pytest.approx(alone.color[0], rel=2e-3, abs=2e-3)
        assert 2 * found.change[i] == pytest.approx(
            np.square(after - aim).sum() - np.square(canvas - aim).sum(), abs=1e-2
        )
        # over black, a white stroke is its opacity
        white = replace(strokes[i : i + 1], color=np.ones((1, 2, 3)))
        opacity = rasterize(white, np.zeros_like(canvas))[..., 0]
        assert found.squared_opacity[i] == pytest.approx(np.square(opacity).sum(), rel=1e-3, abs=1e-3)
