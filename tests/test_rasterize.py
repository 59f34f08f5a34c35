"""The stroke engine: properties of the op, and the kernels against their readable twin."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paintproc.strokes.brushes import ROUND
from paintproc.strokes.ops.arrays import StrokeArrays
from paintproc.strokes.ops.kernels import OPAQUE
from paintproc.strokes.ops.reference import rasterize_slowly
from paintproc.strokes.rasterize import rasterize, rasterize_gradients, squared_error_gradients
from paintproc.strokes.values import Strokes

BRISTLES = np.random.default_rng(5).random((4, 6)).astype(np.float32)
WHITE, BLACK = np.ones(3, np.float32), np.zeros(3, np.float32)


def random_strokes(count: int, seed: int = 0, size: float = 0.2, brushes=(ROUND,)) -> Strokes:
    random = np.random.default_rng(seed)
    middle = random.uniform(0, 1, (count, 1, 2))
    return Strokes(
        points=middle + random.normal(0, size, (count, 3, 2)),
        radius=random.uniform(0.02, 0.1, (count, 2)),
        color=random.uniform(0, 1, (count, 2, 3)),
        alpha=random.uniform(0.2, 0.95, (count, 2)),
        brush=random.integers(0, len(brushes), count),
        brushes=tuple(brushes),
    )


def disc(x: float, y: float, radius: float, color=BLACK, alpha: float = 1.0, end=None) -> Strokes:
    end = (x, y) if end is None else end
    points = [[(x, y), ((x + end[0]) / 2, (y + end[1]) / 2), end]]
    return Strokes(
        points=np.array(points), radius=np.full((1, 2), radius),
        color=np.broadcast_to(color, (1, 2, 3)), alpha=np.full((1, 2), alpha),
    )  # fmt: skip


def join(*parts: Strokes) -> Strokes:
    from paintproc.strokes.values import concatenate

    return concatenate(parts)


def test_a_disc_covers_pi_r_squared():
    picture = rasterize(disc(0.5, 0.5, 0.25), size=(200, 200))
    area = (1 - picture[..., 0]).sum() / float(OPAQUE)
    # a soft edge of half width 1 adds the mean of rho^2 over it: pi / 3
    assert area == pytest.approx(np.pi * 50**2 + np.pi / 3, rel=2e-3)


def test_a_straight_stroke_covers_a_capsule():
    picture = rasterize(disc(0.2, 0.5, 0.1, end=(0.7, 0.5)), size=(200, 200))
    area = (1 - picture[..., 0]).sum() / float(OPAQUE)
    assert area == pytest.approx(np.pi * 20**2 + 100 * 40 + np.pi / 3, rel=2e-3)


def test_an_opaque_stroke_covers_what_is_beneath():
    over = disc(0.5, 0.5, 0.3, color=(0.2, 0.4, 0.6))
    picture = rasterize(join(random_strokes(5), over), size=(64, 64))
    assert np.abs(picture[28:36, 28:36] - np.float32([0.2, 0.4, 0.6])).max() < 1 / 1024


def test_a_transparent_stroke_changes_nothing():
    canvas = np.random.default_rng(1).random((33, 47, 3)).astype(np.float32)
    assert np.array_equal(rasterize(disc(0.5, 0.5, 0.3, alpha=0), canvas), canvas)


def test_order_matters_exactly_where_strokes_overlap():
    a, b = disc(0.3, 0.5, 0.2, color=(1, 0, 0)), disc(0.6, 0.5, 0.2, color=(0, 0, 1))
    ab, ba = rasterize(join(a, b), size=(96, 96)), rasterize(join(b, a), size=(96, 96))
    touched = [(rasterize(s, size=(96, 96)) != 1).any(-1) for s in (a, b)]
    differs = np.abs(ab - ba).max(-1) > 1e-5
    assert differs.any()
    assert not (differs & ~(touched[0] & touched[1])).any()


def test_the_end_colors_and_opacities_are_at_the_ends():
    stroke = Strokes(
        points=np.array([[(0.1, 0.5), (0.5, 0.5), (0.9, 0.5)]]), radius=np.full((1, 2), 0.05),
        color=np.array([[(1, 0, 0), (0, 0, 1)]]), alpha=np.array([[1.0, 0.5]]), ground=BLACK,
    )  # fmt: skip
    picture = rasterize(stroke, size=(100, 100))
    assert picture[50, 10] == pytest.approx([1, 0, 0], abs=0.02)
    assert picture[50, 90] == pytest.approx([0, 0, 0.5], abs=0.02)
    assert picture[50, 50] == pytest.approx([0.375, 0, 0.375], abs=0.02)


def test_resolution_does_not_change_the_picture():
    import cv2

    strokes = random_strokes(20, seed=3)
    large = cv2.resize(rasterize(strokes, size=(512, 512)), (64, 64), interpolation=cv2.INTER_AREA)
    assert np.abs(large - rasterize(strokes, size=(64, 64))).mean() < 0.02


@pytest.mark.parametrize("shape", [(1, 1), (1, 2000), (2000, 1), (17, 16), (31, 33)])
@pytest.mark.parametrize("count", [0, 1, 30])
def test_any_canvas_size(shape, count):
    canvas = np.random.default_rng(0).random((*shape, 3)).astype(np.float32)
    strokes = random_strokes(count, seed=count)
    picture, gradients = squared_error_gradients(strokes, canvas, np.zeros_like(canvas))
    assert np.abs(picture - rasterize_slowly(strokes, canvas)).max() < 2e-4
    assert gradients.points.shape == (count, 3, 2)
    assert all(np.isfinite(array).all() for array in vars(gradients).values())


@pytest.mark.parametrize("where", [-50.0, 1.9, 1e6])
def test_strokes_outside_the_canvas_draw_nothing(where):
    canvas = np.full((40, 40, 3), 0.5, np.float32)
    assert np.array_equal(rasterize(disc(where, where, 0.05), canvas), canvas)


def test_a_stroke_larger_than_the_canvas_fills_it():
    assert rasterize(disc(0.5, 0.5, 40), np.ones((37, 50, 3), np.float32)).max() < 1e-3


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000), count=st.integers(1, 12), height=st.integers(1, 70), width=st.integers(1, 70),
    size=st.sampled_from([0.0, 0.02, 0.3]), softness=st.sampled_from([0.5, 1.0, 3.0]),
)  # fmt: skip
def test_kernels_equal_the_reference(seed, count, height, width, size, softness):
    strokes = random_strokes(count, seed, size, brushes=(ROUND, BRISTLES))
    canvas = np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)
    reveal = np.random.default_rng(seed + 1).choice([0.0, 0.4, 1.0], count)
    fast = rasterize(strokes, canvas, reveal=reveal, softness=softness)
    slow = rasterize_slowly(strokes, canvas, reveal=reveal, softness=softness)
    # float32 against float64: a few pixels sit on the ridge between two ends of a bent stroke
    differs = np.abs(fast - slow).max(-1) > 1e-3
    assert differs.sum() <= 1 + 0.002 * differs.size
    assert np.abs(fast - slow)[~differs].mean() < 2e-5


def numeric_gradient(strokes: Strokes, name: str, canvas: np.ndarray, upstream: np.ndarray) -> np.ndarray:
    """Central differences of sum(picture upstream), by the float64 reference."""
    values = np.array(getattr(strokes, name), np.float64)
    result = np.zeros_like(values)
    for place in np.ndindex(values.shape):
        sides = []
        for step in (2e-6, -2e-6):
            moved = values.copy()
            moved[place] += step
            changed = Float64Strokes(strokes, name, moved)
            sides.append((rasterize_slowly(changed, canvas) * upstream).sum())
        result[place] = (sides[0] - sides[1]) / 4e-6
    return result


class Float64Strokes:
    """Strokes with one array replaced in full precision."""

    def __init__(self, strokes: Strokes, name: str, values: np.ndarray) -> None:
        self.__dict__.update(vars(strokes))
        self.__dict__[name] = values
        self.length = len(strokes)

    def __len__(self) -> int:
        return self.length


def smooth_upstream(shape: tuple[int, int], seed: int) -> np.ndarray:
    import cv2

    noise = np.random.default_rng(seed).normal(size=(*shape, 3)).astype(np.float32)
    return cv2.GaussianBlur(noise, (0, 0), 3)


@pytest.mark.parametrize("name", ["points", "radius", "color", "alpha"])
@pytest.mark.parametrize("brush", ["round", "bristles"])
def test_gradients_equal_finite_differences(name, brush):
    brushes = (ROUND,) if brush == "round" else (BRISTLES,)
    strokes = random_strokes(6, seed=11, size=0.15, brushes=brushes)
    canvas = np.random.default_rng(2).random((60, 52, 3)).astype(np.float32)
    upstream = smooth_upstream((60, 52), 3)
    expected = numeric_gradient(strokes, name, canvas, upstream)
    actual = getattr(rasterize_gradients(strokes, canvas, upstream)[1], name)
    scale = np.abs(expected).max()
    # the derivative jumps at soft edges' ends and between segments: a few pixels disagree
    assert np.abs(actual - expected).max() < 0.02 * scale
    assert np.corrcoef(actual.ravel(), expected.ravel())[0, 1] > 0.9995
    # the check can fail: a gradient of another stroke order is not accepted
    assert np.abs(actual[::-1] - expected).max() > 0.02 * scale


def test_gradients_by_the_canvas_and_the_brushes_equal_finite_differences():
    strokes = random_strokes(7, seed=11, size=0.15, brushes=(ROUND, 0.2 + 0.6 * BRISTLES))
    canvas = np.random.default_rng(2).random((40, 33, 3)).astype(np.float32)
    upstream = smooth_upstream((40, 33), 3)
    _, gradients = rasterize_gradients(strokes, canvas, upstream, brush_gradients=True)
    assert rasterize_gradients(strokes, canvas, upstream)[1].brushes == ()

    def loss(brushes: tuple[np.ndarray, ...], canvas: np.ndarray) -> float:
        return float((rasterize_slowly(Float64Strokes(strokes, "brushes", brushes), canvas) * upstream).sum())

    # the picture is linear in the canvas, and in a brush but for strokes that overlap
    random, step = np.random.default_rng(4), 1e-4
    for _ in range(4):
        change = random.normal(size=canvas.shape)
        both = [loss(strokes.brushes, canvas.astype(np.float64) + sign * step * change) for sign in (1, -1)]
        assert (gradients.canvas * change).sum() == pytest.approx((both[0] - both[1]) / (2 * step), rel=2e-3, abs=1e-3)
    for k, found in enumerate(gradients.brushes):
        for place in np.ndindex(found.shape):
            sides = []
            for sign in (1, -1):
                changed = [brush.astype(np.float64) for brush in strokes.brushes]
                changed[k][place] += sign * step
                sides.append(loss(tuple(changed), canvas))
            expected = (sides[0] - sides[1]) / (2 * step)
            assert found[place] == pytest.approx(expected, rel=0.02, abs=0.01 * float(np.abs(found).max()))
    # the check can fail: the gradient of another brush is not accepted
    assert np.abs(gradients.brushes[1] - gradients.brushes[1][::-1]).max() > 0.05 * np.abs(gradients.brushes[1]).max()


def test_a_brush_of_one_cell_counts():
    """A brush of one cell that is not 1 thins the whole stroke."""
    half = replace(disc(0.5, 0.5, 0.2), brushes=(np.full((1, 1), 0.5, np.float32),))
    canvas = np.ones((40, 40, 3), np.float32)
    assert rasterize(half, canvas)[20, 20] == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("ends", [(0.0, 0.2), (0.2, 0.0), (0.01, 0.15)])
def test_strongly_tapered_strokes_equal_the_reference(ends):
    """Near the thin end of a stroke, a pixel may lie within reach of the thick part and yet not be colored."""
    for seed in range(8):
        strokes = replace(random_strokes(3, seed, 0.25), radius=np.tile(np.array(ends, np.float32), (3, 1)))
        canvas = np.ones((50, 64, 3), np.float32)
        differs = np.abs(rasterize(strokes, canvas) - rasterize_slowly(strokes, canvas)).max(-1) > 1e-3
        assert differs.sum() <= 2


def test_squared_error_gradients_are_those_of_the_squared_error():
    strokes = random_strokes(8, seed=4)
    random = np.random.default_rng(9)
    canvas, target = random.random((2, 40, 50, 3)).astype(np.float32)
    weight = random.random((40, 50)).astype(np.float32)
    picture, fused = squared_error_gradients(strokes, canvas, target, weight)
    _, chained = rasterize_gradients(strokes, canvas, (picture - target) * weight[..., None])
    for name in ("points", "radius", "color", "alpha"):
        assert getattr(fused, name) == pytest.approx(getattr(chained, name), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("weighted", [False, True])
def test_removal_is_the_loss_of_a_stroke(weighted):
    strokes = random_strokes(7, seed=6)
    random = np.random.default_rng(7)
    canvas, target = random.random((2, 48, 48, 3)).astype(np.float32)
    weight = random.random((48, 48)).astype(np.float32) if weighted else np.ones((48, 48), np.float32)
    picture, gradients = squared_error_gradients(strokes, canvas, target, weight)

    def loss(image):
        return ((image.astype(np.float64) - target) ** 2 * weight[..., None]).sum() / 2

    for i in range(len(strokes)):
        without = rasterize(strokes[np.arange(len(strokes)) != i], canvas)
        assert gradients.removal[i] == pytest.approx(loss(without) - loss(picture), rel=2e-3, abs=0.05)


def test_the_number_of_threads_does_not_change_a_byte(monkeypatch):
    from paintproc import threads as module

    strokes = random_strokes(300, seed=1, size=0.05, brushes=(ROUND, BRISTLES))
    canvas = np.zeros((256, 256, 3), np.float32)
    results = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(module, "thread_count", lambda n=threads: n)
        picture, gradients = squared_error_gradients(strokes, canvas, np.ones_like(canvas), brush_gradients=True)
        arrays = [
            part for value in vars(gradients).values() for part in (value if isinstance(value, tuple) else [value])
        ]
        results.append([picture.tobytes(), *(array.tobytes() for array in arrays)])
    assert results[0] == results[1] == results[2]


def test_wrong_shapes_are_refused():
    strokes = random_strokes(2)
    canvas = np.zeros((8, 8, 3), np.float32)
    with pytest.raises(ValueError, match="canvas is"):
        rasterize(strokes, canvas[..., 0])
    with pytest.raises(ValueError, match="reveal"):
        rasterize(strokes, canvas, reveal=np.ones(3))
    with pytest.raises(ValueError, match="shape"):
        squared_error_gradients(strokes, canvas, canvas[:4])
    with pytest.raises(ValueError, match="size"):
        rasterize(strokes)
    with pytest.raises(ValueError, match=r"shape \(100, 100\)"):
        rasterize(strokes, size=(50, 100))


def test_many_large_strokes_are_drawn_in_parts(monkeypatch):
    from paintproc.strokes import rasterize as module

    strokes = replace(random_strokes(40, seed=8), aspect=120 / 90)
    whole = rasterize(strokes, size=(90, 120), reveal=np.linspace(0, 1, 40))
    monkeypatch.setattr(module, "MOST_PAIRS", 50)
    assert len(module._parts(StrokeArrays.of(strokes, 120), (90, 120))) > 5
    parts = rasterize(strokes, size=(90, 120), reveal=np.linspace(0, 1, 40))
    assert np.abs(parts - whole).max() < 1e-4
