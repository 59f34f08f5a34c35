"""Fitting: quality, order, determinism, and canvases of any size."""

import numpy as np
import pytest
from conftest import EXAMPLES

from paintproc.media import load_picture
from paintproc.metrics.frames import psnr
from paintproc.process.clock import to_uint8
from paintproc.strokes.births import walk_order
from paintproc.strokes.fit import LEVELS, fit
from paintproc.strokes.rasterize import rasterize

# dB at 256 pixels and 500 strokes: measured when written, less 0.5
FLOORS = {
    "harvesters": 25.4,
    "self-portrait": 38.4,
    "still-life": 29.2,
    "water-pitcher": 33.8,
    "whalers": 34.9,
    "wheat-field": 25.0,
}


def paint(pixels: np.ndarray, count: int, **options) -> tuple:
    strokes = fit(pixels.astype(np.float32) / 255, count, **options)
    return strokes, to_uint8(rasterize(strokes, size=pixels.shape[:2]))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_quality_of_the_examples(path):
    target = load_picture(path, max_side=256).pixels
    strokes, picture = paint(target, 500)
    assert len(strokes) == 500
    assert psnr(picture, target) > FLOORS[path.stem]


def test_the_floor_would_catch_a_broken_fit():
    """Strokes in a wrong order miss the floor: the guard above can fail."""
    path = next(p for p in EXAMPLES if p.stem == "still-life")
    target = load_picture(path, max_side=256).pixels
    strokes, _ = paint(target, 500)
    shuffled = strokes[np.random.default_rng(0).permutation(500)]
    assert psnr(to_uint8(rasterize(shuffled, size=target.shape[:2])), target) < FLOORS[path.stem] - 3


def test_more_strokes_paint_better(painting):
    values = [psnr(paint(painting, count)[1], painting) for count in (0, 20, 100, 400)]
    assert values == sorted(values)
    assert values[-1] > values[0] + 8


def test_it_goes_from_coarse_to_fine(painting):
    strokes, _ = paint(painting, 200)
    assert strokes.stages == tuple(level.stage for level in LEVELS)
    assert (np.diff(strokes.stage) >= 0).all()
    widths = [np.median(strokes.radius[strokes.stage == k]) for k in range(len(LEVELS))]
    assert widths == sorted(widths, reverse=True)


def test_every_prefix_is_nearer_than_the_blank_canvas(painting):
    strokes, _ = paint(painting, 200)
    distances = [
        psnr(to_uint8(rasterize(strokes[:count], size=painting.shape[:2])), painting)
        for count in (0, 10, 20, 50, 80, 140, 200)
    ]
    assert all(later > distances[0] for later in distances[1:])
    assert distances[-1] == max(distances)


def test_equal_arguments_give_equal_strokes(painting):
    first, second, other = (paint(painting, 60, seed=seed)[0] for seed in (4, 4, 5))
    for name in ("points", "radius", "color", "alpha", "stage"):
        assert np.array_equal(getattr(first, name), getattr(second, name))
    assert not np.array_equal(first.points, other.points)


def test_a_begun_canvas_is_the_ground(painting):
    begun = painting.copy()
    begun[:, 32:] = 255
    strokes, picture = paint(painting, 100, canvas=begun.astype(np.float32) / 255)
    assert np.array_equal(to_uint8(strokes.ground), begun)
    assert psnr(picture, painting) > psnr(begun, painting) + 6
    # the finished half needs few strokes
    assert (strokes.points[:, 1, 0] * 64 > 28).mean() > 0.7


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 3), (40, 700)])
@pytest.mark.parametrize("count", [0, 1, 3, 40])
def test_any_size_and_number(shape, count):
    target = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    strokes, picture = paint(target, count)
    assert len(strokes) == count
    assert picture.shape == target.shape


def test_a_plain_picture_is_left_plain():
    target = np.full((32, 48, 3), 77, np.uint8)
    assert np.abs(paint(target, 30)[1].astype(int) - 77).max() <= 1


def test_progress_runs_from_0_to_1(painting):
    seen = []
    fit(painting.astype(np.float32) / 255, 50, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[0] < 0.1
    assert seen[-1] == pytest.approx(1)


def test_the_walk_visits_neighbors():
    y, x = np.mgrid[:32, :32]
    rank = walk_order((y * 32 + x).ravel(), 32, 32)
    assert sorted(rank) == list(range(1024))
    order = np.argsort(rank)
    steps = np.abs(np.diff(y.ravel()[order])) + np.abs(np.diff(x.ravel()[order]))
    assert (steps == 1).all()


def test_bad_arguments_are_refused(painting):
    target = painting.astype(np.float32) / 255
    with pytest.raises(ValueError, match="target"):
        fit(target[..., 0], 5)
    with pytest.raises(ValueError, match="canvas"):
        fit(target, 5, canvas=target[:5])
    with pytest.raises(ValueError, match="negative"):
        fit(target, -1)
