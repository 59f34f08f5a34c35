"""Painting as people do: the plan, the order, and figures that say whether it holds."""

import dataclasses

import numpy as np
import pytest
from conftest import EXAMPLES, ROOT

import paintproc
from paintproc.config.plan import HUMAN, PREPARES, read_plan
from paintproc.errors import InputError, UsageError
from paintproc.media import load_picture
from paintproc.metrics.frames import psnr
from paintproc.process.captions import captions
from paintproc.process.clock import stage_ends, stroke_ends, to_uint8, worked_on
from paintproc.process.judge import judge
from paintproc.process.paint import paint
from paintproc.scene.find import find_scene
from paintproc.strokes.fit import fit
from paintproc.strokes.ops.arrays import Brushes, StrokeArrays
from paintproc.strokes.ops.in_turn import error_changes, lay_in_turn
from paintproc.strokes.rasterize import rasterize, squared_error_gradients
from paintproc.strokes.values import Strokes

PLAN = read_plan(HUMAN)
BEHIND = PLAN.behind


def of_stage(strokes: Strokes, *names: str) -> np.ndarray:
    """Which strokes belong to a stage of one of these names [N]."""
    return np.array([stage.name in names for stage in strokes.stages])[strokes.stage]


@pytest.fixture(scope="module", params=["still-life", "self-portrait"])
def painted(request):
    path = next(p for p in EXAMPLES if p.stem == request.param)
    target = load_picture(path, max_side=320).pixels
    scene = find_scene(target)
    return target, scene, paint(target.astype(np.float32) / 255, 1200, PLAN, scene)


def test_the_human_order_holds(painted):
    """The bounds of the eight figures, as benchmarks/bench_plan.py measures them on larger sets."""
    target, scene, strokes = painted
    found = judge(strokes, scene, target, BEHIND)
    free = to_uint8(rasterize(fit(target.astype(np.float32) / 255, 1200), size=target.shape[:2]))
    assert psnr(free, target) - found.psnr < 1.5
    long = {k: v for k, v in found.stage_time.items() if k not in ("ground", "highlights")}
    assert all(0.05 <= time <= 0.5 for time in long.values()), long
    assert found.locality > 0.6
    assert found.monotone >= 0.9
    assert found.order >= 0.8
    widths = list(found.width.values())
    assert widths == sorted(widths, reverse=True)
    assert found.purposeful >= 0.95
    assert found.ghost < 0.25


def test_the_figures_notice_a_wrong_order(painted):
    target, scene, strokes = painted
    painted_part = ~of_stage(strokes, "ground", "drawing")
    order = np.arange(len(strokes))
    order[painted_part] = order[painted_part][::-1]
    backwards = judge(strokes[order], scene, target, BEHIND)
    assert backwards.psnr < judge(strokes, scene, target, BEHIND).psnr - 5
    assert backwards.order < 0
    assert backwards.purposeful < judge(strokes, scene, target, BEHIND).purposeful - 0.02
    free = fit(target.astype(np.float32) / 255, 1200)
    y, x = np.clip((free.points[:, 1, ::-1] * 320).astype(int), 0, np.array(target.shape[:2]) - 1).T
    names = tuple(map(str, range(len(scene))))
    relabeled = dataclasses.replace(free, region=scene.regions[y, x], regions=names)
    free_order = judge(relabeled, scene, target, BEHIND)
    assert free_order.order < 0.8
    assert free_order.purposeful < 0.95


def test_strokes_are_in_the_order_of_the_plan(painted):
    _, scene, strokes = painted
    assert len(strokes) <= 1200
    assert strokes.stages == tuple(stage.stage for stage in PLAN.stage)
    assert [stage.name for stage in strokes.stages] == [
        "ground", "drawing", "block-in", "development", "detail", "highlights",
    ]  # fmt: skip
    assert (np.diff(strokes.stage) >= 0).all()
    assert set(strokes.stage) == set(range(6))
    for name in ("block-in", "development"):
        assert (np.diff(strokes.region[of_stage(strokes, name)]) >= 0).all()
    rank = np.argsort(np.argsort(scene.weight, kind="stable"))
    for name in ("detail", "highlights"):
        assert (np.diff(rank[strokes.region[of_stage(strokes, name)]]) >= 0).all()
    drawing = of_stage(strokes, "drawing")
    assert set(strokes.brush[drawing]) == {1}
    assert set(strokes.brush[~drawing]) == {0}


def test_equal_arguments_give_equal_paintings(painting):
    target = painting.astype(np.float32) / 255
    scene = find_scene(painting)
    first, again, other = (paint(target, 150, PLAN, scene, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.points, again.points)
    assert not np.array_equal(first.points[:50], other.points[:50])


@pytest.mark.parametrize("shape", [(1, 1), (1, 90), (7, 200), (30, 30)])
@pytest.mark.parametrize("count", [0, 1, 7, 60])
def test_any_size_and_number(shape, count):
    target = np.random.default_rng(1).integers(0, 256, (*shape, 3)).astype(np.uint8)
    strokes = paint(target.astype(np.float32) / 255, count, PLAN, find_scene(target))
    assert len(strokes) <= count
    assert rasterize(strokes, size=shape).shape == (*shape, 3)


def test_a_begun_canvas_is_gone_on_from(painted):
    target, scene, strokes = painted
    unit = target.astype(np.float32) / 255
    begun = rasterize(strokes[~of_stage(strokes, "detail", "highlights")], size=target.shape[:2])
    more = paint(unit, 800, PLAN, scene, canvas=begun)
    assert len(more) <= 800
    assert {more.stages[k].role for k in set(more.stage)}.isdisjoint(PREPARES)
    assert of_stage(more, "block-in").mean() < 0.05
    assert psnr(to_uint8(rasterize(more, size=target.shape[:2])), target) > psnr(to_uint8(begun), target) + 2


def test_what_each_stroke_changed():
    from test_rasterize import BRISTLES, ROUND, random_strokes

    strokes = random_strokes(30, seed=5, size=0.1, brushes=(ROUND, BRISTLES))
    random = np.random.default_rng(0)
    canvas, *aims = random.random((3, 70, 90, 3)).astype(np.float32)
    aim_of = random.integers(0, 2, 30)
    changes = error_changes(strokes, canvas, np.array(aims), aim_of)
    for i in range(30):
        after = rasterize(strokes[i : i + 1], canvas)
        aim = aims[aim_of[i]].astype(float)
        assert changes[i] == pytest.approx(((after - aim) ** 2).sum() - ((canvas - aim) ** 2).sum(), abs=1e-2)
        canvas = after


def test_the_gradient_of_laying_is_that_of_one_stroke():
    from test_rasterize import BRISTLES, ROUND, random_strokes

    strokes = random_strokes(6, seed=2, size=0.1, brushes=(ROUND, BRISTLES))
    random = np.random.default_rng(0)
    canvas, aim = random.random((2, 50, 60, 3)).astype(np.float32)
    brushes = Brushes.gather(strokes.brush, strokes.brushes)
    found = lay_in_turn(StrokeArrays.of(strokes, 60), brushes, canvas, aim[None], np.zeros(6, np.int32))
    for i in range(6):
        _, alone = squared_error_gradients(strokes[i : i + 1], canvas, aim)
        assert found.points[i].ravel() * 60 == pytest.approx(alone.points.ravel(), rel=2e-3, abs=2e-2)
        assert found.color[i].ravel() == pytest.approx(alone.color.ravel(), rel=2e-3, abs=2e-3)
        canvas = rasterize(strokes[i : i + 1], canvas)


def test_time_goes_to_long_strokes_new_colors_and_new_places(painted):
    _, _, strokes = painted
    costs = np.diff(stroke_ends(strokes), prepend=0)
    assert costs.sum() == pytest.approx(1)
    moved = np.concatenate([[False], (np.diff(strokes.region) != 0) & (np.diff(strokes.stage) == 0)])
    detail = of_stage(strokes, "detail")
    assert np.median(costs[moved & detail]) > 2 * np.median(costs[~moved & detail])
    ends = stage_ends(strokes)
    assert ends[0] == 0
    assert ends[-1] == pytest.approx(1)
    assert len(ends) == 1 + len(np.unique(strokes.stage))
    assert sum(worked_on(strokes, 0, 1).values()) == pytest.approx(1)


def test_captions_name_what_was_painted(painted):
    _, _, strokes = painted
    words = captions(strokes, np.linspace(0, 1, 16))
    assert words[0] == "the empty canvas"
    assert words[1] == "tone the ground"
    assert any(sentence.startswith("block in ") for sentence in words)
    assert any(sentence.startswith("work out the details of ") for sentence in words)


def test_frames_at_stages_and_painting_time(painting):
    config = paintproc.GenerateConfig(strokes=120, frames_at="stage", painting_time=30, format=("scene", "sheet"))
    sequence = paintproc.generate(painting, config)
    assert list(sequence.stages) == ["blank", "ground", "drawing", "block-in", "development", "detail", "highlights"]
    assert sequence.seconds[-1] == 1800
    assert sequence.scene is not None
    assert sequence.info["method"] == "human"
    assert [stage["name"] for stage in sequence.info["plan"]["stage"]] == list(sequence.stages[1:])


def test_a_label_is_seen(tmp_path, painting):
    from PIL import Image

    large = np.ascontiguousarray(painting.repeat(4, 0).repeat(4, 1))
    for name, label in (("plain", False), ("labelled", True)):
        config = paintproc.GenerateConfig(strokes=60, num_frames=3, label=label, format=("frames",))
        paintproc.save_sequence(paintproc.generate(large, config), tmp_path / name)
    plain, labelled = (np.array(Image.open(tmp_path / n / "frames/001.png")) for n in ("plain", "labelled"))
    differs = (plain != labelled).any(-1)
    assert 50 < differs.sum() < 0.1 * differs.size
    assert not differs[: differs.shape[0] * 3 // 4].any()


def test_a_plan_can_be_edited(tmp_path, painting):
    text = (ROOT / "paintproc" / "plans" / "human.toml").read_text()
    path = tmp_path / "loose.toml"
    path.write_text(text[: text.index('[[stage]]\nname = "detail"')].replace('"human"', '"loose"'))
    sequence = paintproc.generate(painting, paintproc.GenerateConfig(strokes=100, plan=str(path)))
    assert sequence.info["method"] == "loose"
    assert [stage.name for stage in sequence.strokes.stages] == ["ground", "drawing", "block-in", "development"]


BROKEN = {
    "not toml": ("[[stage", InputError),
    "no stage": ('name = "a"', UsageError),
    "unknown table": ('[[stage]]\nname = "a"\nshare = 1\nlength = 0.1\n[brush]\n', UsageError),
    "no share": ('[[stage]]\nname = "a"\nlength = 0.1', UsageError),
    "bad order": ('[[stage]]\nname = "a"\nshare = 1\nlength = 0.1\norder = "random"', UsageError),
    "bad number": ('[[stage]]\nname = "a"\nshare = "much"\nlength = 0.1', UsageError),
    "zero scale": ('[[stage]]\nname = "a"\nshare = 1\nlength = 0.1\nscale = 0', UsageError),
    "two of a name": ('[[stage]]\nname = "a"\nshare = 1\nlength = 0.1\n' * 2, UsageError),
    "bad ground": ('ground = 5\n[[stage]]\nname = "a"\nshare = 1\nlength = 0.1', UsageError),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_plans_are_refused(tmp_path, case):
    text, error = BROKEN[case]
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(error):
        read_plan(str(tmp_path / "plan.toml"))
