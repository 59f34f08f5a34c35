"""Stylized Neural Painting: the transport loss, the order of strokes, their ranges, and odd pictures."""

import itertools

import numpy as np
import pytest
from conftest import EXAMPLES

from paintproc.config.plan import BLANK
from paintproc.media import load_picture
from paintproc.metrics.frames import mse
from paintproc.process.clock import to_uint8
from paintproc.strokes.brushes import check_brush, marker_brush, oil_brush
from paintproc.strokes.ops.cpu import composite
from paintproc.strokes.rasterize import rasterize
from paintproc.strokes.values import ROWS
from paintproc.synth import stylized, transport
from paintproc.synth.stylized import MEDIA, Grid, divide_strokes, draw_places, paint_stylized, shrink
from paintproc.synth.transport import EPSILON, ITERATIONS, LEAST_MASS, SIDE, area_matrix, transport_distance
from paintproc.synth.transport import transport_gradient as gradient_of_transport

COUNT = 120  # two strokes in each cell of five grids


@pytest.fixture(scope="module")
def target() -> np.ndarray:
    path = next(path for path in EXAMPLES if path.stem == "still-life")
    return load_picture(path, max_side=104).pixels.astype(np.float32) / 255


@pytest.fixture(scope="module")
def painted(target) -> dict:
    return {brush: paint_stylized(target, COUNT, brush=brush, seed=3) for brush in MEDIA}


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr(stylized, "MOST_STEPS", 12)
    monkeypatch.setattr(stylized, "FINISH", 4)


def random_pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, SIDE, SIDE)) ** 3


def blob(x: float, y: float) -> np.ndarray:
    """A soft light [1, SIDE, SIDE] in the dark, around (x, y) in the unit square."""
    place = np.linspace(0, 1, SIDE)
    return np.exp(-((place - x) ** 2 + (place[:, None] - y) ** 2) / 0.01)[None]


def slow_distance(picture: np.ndarray, target: np.ndarray) -> float:
    """What `transport_distance` means for one pair [SIDE, SIDE], with the whole kernel of 576 x 576."""
    y, x = np.divmod(np.arange(SIDE * SIDE), SIDE) / np.float64(SIDE - 1)
    kernel = np.exp(-((x[:, None] - x) ** 2 + (y[:, None] - y) ** 2) / EPSILON)

    def cost(a: np.ndarray, b: np.ndarray) -> float:
        v = np.ones_like(b)
        for _ in range(ITERATIONS):
            u = a / (kernel @ v)
            v = b / (kernel.T @ u)
        return EPSILON * (a @ np.log(u) + b @ np.log(v))

    a, b = ((image.ravel() + LEAST_MASS) / (image + LEAST_MASS).sum() for image in (picture, target))
    return cost(a, b) - cost(a, a) / 2 - cost(b, b) / 2


def test_the_separable_transport_equals_the_slow_one():
    pictures, targets = random_pictures(3), np.concatenate([random_pictures(2, seed=1), blob(0.3, 0.8)])
    slow = [slow_distance(picture, target) for picture, target in zip(pictures, targets, strict=True)]
    assert np.allclose(transport_distance(pictures, targets), slow, rtol=1e-9, atol=1e-14)


def test_transport_is_nothing_between_equals_and_grows_with_the_way():
    assert np.abs(transport_distance(random_pictures(2), random_pictures(2))).max() < 1e-12
    ways = np.array([0, 0.1, 0.2, 0.4, 0.6])
    moved = np.concatenate([blob(0.2 + way, 0.4) for way in ways])
    found = transport_distance(moved, np.repeat(blob(0.2, 0.4), len(ways), 0), iterations=300)
    assert (np.diff(found) > 0).all()
    # nearly the squared distance; a part of the mass is spread over the whole square and stays
    assert (found[1:] > 0.5 * ways[1:] ** 2).all()
    assert (found[1:] < 1.05 * ways[1:] ** 2).all()


def test_transport_of_black_and_of_far_pictures_is_finite():
    black, corner = np.zeros((1, SIDE, SIDE)), np.zeros((1, SIDE, SIDE))
    corner[0, 0, 0] = 1
    for picture, target in itertools.product((black, corner, corner[:, ::-1, ::-1]), repeat=2):
        assert np.isfinite(transport_distance(picture, target)).all()
        assert np.isfinite(gradient_of_transport(picture, target)).all()


@pytest.mark.parametrize("iterations, allowed", [(2000, 1e-5), (ITERATIONS, 0.5)])
def test_the_gradient_of_transport_by_finite_differences(iterations, allowed):
    """Exact where Sinkhorn's scaling has converged; with few rounds it is near, and no more."""
    picture, target = blob(0.45, 0.5) + random_pictures(1), blob(0.55, 0.5) + random_pictures(1, seed=1)
    slope = gradient_of_transport(picture, target, iterations=iterations)[0]
    step, random = 1e-4, np.random.default_rng(5)
    for y, x in random.integers(0, SIDE, (12, 2)):
        nudge = np.zeros_like(picture)
        nudge[0, y, x] = step
        higher, lower = (transport_distance(picture + sign * nudge, target, iterations=iterations) for sign in (1, -1))
        assert slope[y, x] == pytest.approx((higher - lower)[0] / (2 * step), abs=allowed * np.abs(slope).max())


@pytest.mark.parametrize("pixels", [1, 7, 24, 37, 100])
def test_resizing_by_area_keeps_means(pixels):
    matrix = area_matrix(SIDE, pixels).toarray()
    assert np.allclose(matrix.sum(1), 1, atol=1e-5)
    assert np.allclose(matrix.sum(0), SIDE / pixels, atol=1e-4)
    places = matrix @ (np.arange(pixels) + 0.5)
    assert (np.diff(places) >= -1e-4).all()


def lone_light(target: np.ndarray, x: float) -> Grid:
    """A grid of one dark cell with one light stroke around `x`, in pixels, that has not been optimised."""
    grid = Grid(target, np.zeros_like(target), 1, MEDIA["marker"], np.random.default_rng(0))
    grid.begin_strokes(grid.canvas, 1)
    strokes = grid.strokes
    strokes.points[0] = [[x, 28], [x, 32], [x, 36]]
    strokes.radius[:], strokes.color[:], strokes.alpha[:] = 6, 1, 0.9
    return grid


@pytest.mark.parametrize("here, there", [(14, 46), (46, 14)])
def test_transport_moves_a_stroke_where_the_pixels_do_not(here, there, monkeypatch):
    """A light far from where one should be: moving it does not change the pixel loss, but the transport's."""
    target = np.zeros((64, 64, 3), np.float32)
    target[26:38, there - 6 : there + 6] = 1
    pulls = {}
    for weight in (stylized.TRANSPORT_WEIGHT, 0.0):
        monkeypatch.setattr(stylized, "TRANSPORT_WEIGHT", weight)
        # the pixel loss has a slope from the raster, which is nothing in the mean over a pixel
        grids = [lone_light(target, here + part) for part in (np.arange(32) + 0.5) / 32]
        pulls[weight] = -np.mean([grid.side * grid.gradient(grid.draw()).points[0, :, 0].sum() for grid in grids])
    with_transport, without = pulls.values()
    assert with_transport * np.sign(there - here) > 0.01
    assert abs(without) < 0.1 * abs(with_transport)


def loss_of(grid: Grid) -> float:
    """The loss whose derivative is `Grid.gradient`, in the channel 0 and with many rounds of scaling."""
    picture = grid.draw()
    light = transport_distance(grid.light_of(picture[..., 0]), grid.aim[0], iterations=400).sum()
    pixel = np.abs(picture.astype(np.float64) - grid.target).mean((0, 1, 2)) * grid.cells**2
    return float(pixel + stylized.TRANSPORT_WEIGHT * light)


def test_the_gradient_of_the_whole_loss_by_finite_differences(target, monkeypatch):
    """From pixels through cells, the area resize and the normalisation to the parameters of strokes."""
    small = np.ascontiguousarray(target[:48, :64])
    grid = Grid(small, np.full_like(small, 0.3), 2, MEDIA["oil"], np.random.default_rng(1))
    grid.begin_strokes(grid.canvas, 2)
    monkeypatch.setattr(stylized, "TRANSPORT_WEIGHT", 20.0)
    monkeypatch.setattr(
        stylized, "transport_gradient", lambda *pair: transport.transport_gradient(*pair, iterations=400)
    )
    monkeypatch.setattr(grid, "random", type("Zero", (), {"integers": lambda self, most: 0})())
    monkeypatch.setattr(grid, "tie", lambda slopes: slopes)
    names, random = {"points": 1.0, "radius": 1.0, "color": 0.02, "alpha": 0.02}, np.random.default_rng(2)
    slopes, before = grid.gradient(grid.draw()), grid.strokes.copy()
    for _ in range(6):
        ways = {name: part * random.normal(size=getattr(before, name).shape) for name, part in names.items()}
        products = np.concatenate([(getattr(slopes, name) * way).ravel() for name, way in ways.items()])
        values = []
        for sign in (1, -1):
            grid.strokes = before.copy()
            for name, way in ways.items():
                getattr(grid.strokes, name)[:] += sign * 0.003 * way
            values.append(loss_of(grid))
        size = float(np.linalg.norm(products))
        assert (values[0] - values[1]) / 0.006 == pytest.approx(products.sum(), abs=0.1 * size)


@pytest.mark.parametrize("brush", MEDIA)
def test_one_stroke_of_every_cell_then_the_next(target, brush, few_steps):
    for cells in (1, 2, 4):
        small = shrink(target, cells)
        grid = Grid(small, np.ones_like(small), cells, MEDIA[brush], np.random.default_rng(cells))
        grid.paint(3)
        curve = grid.strokes.points
        middle = (curve[:, 0] + 2 * curve[:, 1] + curve[:, 2]) / 4 / [grid.width, grid.height]
        assert len(middle) == 3 * cells**2
        column, row = np.floor(middle).astype(int).T
        rounds = (row * cells + column).reshape(3, -1)
        assert (rounds == rounds[0]).all()
        assert sorted(rounds[0]) == list(range(cells**2))
        assert cells < 4 or (np.diff(rounds[0]) < 0).any()
        inside = middle - np.floor(middle)
        assert inside.min() > 0.1 - 1e-4
        assert inside.max() < 0.9 + 1e-4


@pytest.mark.parametrize("per_cell", [1, 5, 12, 31])
def test_every_cell_begins_as_many_strokes(target, per_cell, few_steps):
    """Also where there are more strokes in a cell than steps."""
    small = shrink(target, 2)
    grid = Grid(small, np.ones_like(small), 2, MEDIA["oil"], np.random.default_rng(0))
    grid.paint(per_cell)
    assert len(grid.strokes) == 4 * per_cell


def test_places_are_drawn_where_the_error_is():
    density = np.full((3, 50), 1e-9)
    density[[0, 1, 2], [7, 0, 49]] = 1
    assert (draw_places(density, 20, np.random.default_rng(0)) == np.array([[7], [0], [49]])).all()
    target = np.full((64, 64, 3), 0.5, np.float32)
    picture = target.copy()
    picture[40:48, 50:58] = 0
    for seed in range(4):
        grid = Grid(target, target, 2, MEDIA["oil"], np.random.default_rng(seed))
        places = grid.find_places(picture, 8)[np.tile(grid.order, 8) == 3]
        assert np.abs(places - [54, 44]).max() < 8


def test_a_stroke_begins_with_the_color_of_its_place_along_the_contours():
    target = np.zeros((64, 64, 3), np.float32)
    target[:, ::2], target[:, 32:, 0] = [0, 0.5, 0.5], 1
    grid = Grid(target, np.ones_like(target), 2, MEDIA["oil"], np.random.default_rng(0))
    grid.begin_strokes(grid.canvas, 10)
    start, control, end = grid.strokes.points.transpose(1, 0, 2)
    column, row = control.astype(int).T
    for color in grid.strokes.color.transpose(1, 0, 2):
        assert np.array_equal(color, target[row, column])
    along = np.abs(end - start)
    assert np.median(along[:, 1] / along[:, 0]) > 3


def test_the_last_steps_settle_the_strokes(target, monkeypatch):
    small, errors = shrink(target, 2), []
    monkeypatch.setattr(stylized, "MOST_STEPS", 24)
    for finish in (1, 60):
        monkeypatch.setattr(stylized, "FINISH", finish)
        grids = [Grid(small, np.ones_like(small), 2, MEDIA["oil"], np.random.default_rng(seed)) for seed in range(8)]
        for grid in grids:
            grid.paint(4)
        errors.append(np.mean([np.abs(grid.draw() - small).mean() for grid in grids]))
    assert errors[1] < 0.85 * errors[0]


@pytest.mark.parametrize("shape, cells", [((7, 300), 1), ((40, 400), 2), ((512, 400), 1), ((503, 377), 5)])
def test_a_grid_is_optimised_at_whole_cells_of_some_size(shape, cells):
    height, width = shrink(np.zeros((*shape, 3), np.float32), cells).shape[:2]
    assert height % cells == 0
    assert width % cells == 0
    assert min(height, width) >= min(stylized.LEAST_CELL * cells, *shape)
    assert max(height, width) <= max(stylized.CELL_SIDE * cells, *shape)
    assert height / width == pytest.approx(shape[0] / shape[1], rel=0.05)


@pytest.mark.parametrize(
    "count, size, grids, per_cell",
    [
        (500, (512, 400), 5, 9), (1000, (512, 400), 5, 18), (55, (512, 400), 5, 1), (54, (512, 400), 4, 1),
        (29, (512, 400), 3, 2), (4, (512, 400), 1, 4), (0, (512, 400), 1, 0), (500, (64, 200), 4, 16),
        (500, (7, 300), 1, 500), (3, (1, 1), 1, 3),
    ],
)  # fmt: skip
def test_how_strokes_are_divided(count, size, grids, per_cell):
    assert divide_strokes(count, *size) == (grids, per_cell)


@pytest.mark.parametrize("brush", MEDIA)
def test_ranges_of_the_strokes(painted, target, brush):
    strokes = painted[brush]
    assert 0.5 * COUNT < len(strokes) <= divide_strokes(COUNT, *target.shape[:2])[1] * 55
    assert [stage.name for stage in strokes.stages] == [f"grid {number}" for number in (1, 2, 3, 4, 5)]
    said = [stage.caption("the picture") for stage in strokes.stages[:2]]
    assert said == ["lay in the picture", "paint, in 2 by 2 cells, the picture"]
    assert (np.diff(strokes.stage) >= 0).all()
    assert strokes.regions == ("the picture",)
    assert not strokes.region.any()
    assert np.array_equal(strokes.ground, np.array(BLANK, np.float32))
    assert strokes.aspect == target.shape[1] / target.shape[0]
    low, high = MEDIA[brush].alpha
    assert strokes.alpha.min() >= np.float32(low)
    assert strokes.alpha.max() <= np.float32(high)
    assert np.ptp(strokes.alpha) > 0.2 * (high - low)
    assert np.array_equal(strokes.radius[:, 0], strokes.radius[:, 1])
    side = np.sqrt(target.shape[0] / target.shape[1]) / (strokes.stage + 1)
    assert (strokes.radius[:, 0] > 0.95 * stylized.LEAST_RADIUS * side).all()
    assert (strokes.radius[:, 0] < 1.05 * stylized.RADIUS[1] * side).all()
    one_color = (strokes.color[:, 0] == strokes.color[:, 1]).all(1)
    assert one_color.all() if brush == "marker" else not one_color.any()


def test_oil_is_nearly_straight_and_markers_bend(painted):
    bent = {}
    for brush, strokes in painted.items():
        chord = strokes.points[:, 2] - strokes.points[:, 0]
        bend = strokes.points[:, 1] - (strokes.points[:, 0] + strokes.points[:, 2]) / 2
        bent[brush] = np.linalg.norm(bend, axis=1) / np.linalg.norm(chord, axis=1)
        width = 2 * strokes.radius[:, 0]
        assert (np.linalg.norm(chord, axis=1) > 0.98 * MEDIA[brush].shortest * width).all()
    assert bent["oil"].max() < 0.11
    assert np.quantile(bent["marker"], 0.75) > 0.15


def error_after(strokes, target: np.ndarray, stage: int) -> float:
    drawn = strokes[strokes.stage < stage]
    return mse(to_uint8(rasterize(drawn, size=target.shape[:2])), to_uint8(target))


@pytest.mark.parametrize("brush", MEDIA)
def test_every_grid_brings_the_canvas_nearer(painted, target, brush):
    errors = [error_after(painted[brush], target, stage) for stage in range(6)]
    assert all(later < 0.97 * earlier for earlier, later in itertools.pairwise(errors))
    assert errors[-1] < 0.06 * errors[0]


def test_a_grid_is_painted_on_what_the_grids_before_it_left(target, few_steps, monkeypatch):
    seen = []

    def watch(small, canvas, *rest):
        seen.append(canvas)
        return Grid(small, canvas, *rest)

    monkeypatch.setattr(stylized, "Grid", watch)
    # a size that all grids divide into whole pixels
    strokes = paint_stylized(target[:48, :96], 28, seed=1)
    assert len(seen) == 3
    for stage, canvas in enumerate(seen):
        drawn = rasterize(strokes[strokes.stage < stage], size=canvas.shape[:2])
        assert np.abs(drawn - canvas).max() < 0.001
    assert np.abs(seen[1] - np.array(BLANK, np.float32)).mean() > 0.1


def test_useless_strokes_are_left_out(target, few_steps):
    small = shrink(target, 2)
    grid = Grid(small, np.ones_like(small), 2, MEDIA["oil"], np.random.default_rng(0))
    grid.paint(4)
    grid.strokes.radius[3] = 0.024 * grid.side
    grid.strokes.color[-1] = 1 - grid.strokes.color[-1].round()
    useful = grid.find_useful()
    assert not useful[[3, -1]].any()
    assert useful.any()
    errors = []
    for kept in (np.arange(len(useful)) != 3, useful):
        picture = composite(grid.strokes[kept], grid.medium.brushes(kept.sum()), grid.canvas).picture
        errors.append(((picture - small) ** 2).sum())
    assert errors[1] < errors[0]


@pytest.mark.parametrize("under, stays", [(0.42, True), (0.0, False)])
def test_what_spoils_the_canvas_for_a_small_gain_is_left_out(under, stays):
    """A stroke under another that hides nine tenths of it: good in the end, but not when it is laid."""
    target = np.full((64, 64, 3), 0.5 * 0.9 + 0.1 * under, np.float32)
    grid = Grid(target, np.full_like(target, 0.3), 1, MEDIA["marker"], np.random.default_rng(0))
    grid.begin_strokes(grid.canvas, 2)
    strokes = grid.strokes
    strokes.points[:], strokes.radius[:] = [[20, 32], [32, 32], [44, 32]], [[8], [14]]
    strokes.color[0], strokes.color[1], strokes.alpha[:] = under, 0.5, 0.9
    assert grid.find_useful().tolist() == [stays, True]


@pytest.mark.parametrize("brush", MEDIA)
def test_it_paints_better_than_chance(painted, target, brush):
    """The same strokes, at places of other strokes of their grid, are far from the target."""
    strokes = painted[brush]
    random = np.random.default_rng(0)
    other = np.concatenate([random.permutation(np.flatnonzero(strokes.stage == stage)) for stage in range(5)])
    chance = strokes[np.arange(len(strokes))]
    object.__setattr__(chance, "color", strokes.color[other])
    assert error_after(strokes, target, 5) < 0.25 * error_after(chance, target, 5)


def test_equal_arguments_give_equal_strokes(target, few_steps, monkeypatch):
    first, other = (paint_stylized(target, 55, seed=seed) for seed in (1, 2))
    monkeypatch.setenv("PAINTPROC_THREADS", "1")
    again = paint_stylized(target, 55, seed=1)
    assert all(getattr(first, name).tobytes() == getattr(again, name).tobytes() for name in ROWS)
    assert first.points.tobytes() != other.points.tobytes()


@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (300, 2), (33, 50)])
@pytest.mark.parametrize("count", [0, 1, 40])
def test_any_size_and_number(shape, count, few_steps):
    random = np.random.default_rng(0).random((*shape, 3)).astype(np.float32)
    for target, brush in itertools.product((random, np.zeros_like(random), np.full_like(random, 0.5)), MEDIA):
        strokes = paint_stylized(target, count, brush=brush)
        assert len(strokes) <= count
        assert np.isfinite(rasterize(strokes, size=shape)).all()


def test_a_plain_picture_becomes_plain(few_steps):
    target = np.full((40, 60, 3), 0.3, np.float32)
    picture = rasterize(paint_stylized(target, 60), size=(40, 60))
    assert np.abs(picture - 0.3).mean() < 0.02


def test_progress_rises_to_1(target, few_steps):
    seen = []
    paint_stylized(target, 55, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[0] < 0.1
    assert seen[-1] == 1
    none = []
    paint_stylized(target, 0, progress=none.append)
    assert none == [1]


def test_the_brushes_cover_in_the_middle():
    for brush in (oil_brush(), marker_brush()):
        assert check_brush(brush) is brush
        along, across = brush.shape
        inner = brush[along // 4 : max(1, along // 2), across // 4 : -(across // 4)]
        assert inner.mean() > 0.85
        assert brush[:, [0, -1]].max() < inner.mean()
    assert not oil_brush()[[0, -1]].any()
    assert np.ptp(oil_brush()[-5]) > 0.2
    assert not np.ptp(marker_brush(), 0).any()


def test_bad_arguments_are_refused(target):
    for wrong in (target[..., 0], target[:0], target[..., :2]):
        with pytest.raises(ValueError, match="target"):
            paint_stylized(wrong, 5)
    for wrong in (2 * target, -target, np.full_like(target, np.nan)):
        with pytest.raises(ValueError, match="target lies"):
            paint_stylized(wrong, 5)
    with pytest.raises(ValueError, match="negative"):
        paint_stylized(target, -1)
    with pytest.raises(ValueError, match="brush"):
        paint_stylized(target, 5, brush="spray")
