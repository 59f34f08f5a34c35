"""Strokes as arrays: the names are views of one packed array."""

import numpy as np
import pytest

from paintproc.strokes.ops.arrays import Brushes, StrokeArrays, join
from paintproc.strokes.values import Strokes

SHAPES = {"points": (3, 2), "radius": (2,), "color": (2, 3), "alpha": (2,)}


def some(count: int, seed: int = 0) -> StrokeArrays:
    arrays, random = StrokeArrays.zeros(count), np.random.default_rng(seed)
    for name, shape in SHAPES.items():
        getattr(arrays, name)[:] = random.random((count, *shape))
    return arrays


def values_of(arrays: StrokeArrays) -> dict[str, np.ndarray]:
    return {name: getattr(arrays, name).copy() for name in SHAPES}


@pytest.mark.parametrize("count", [0, 1, 7])
@pytest.mark.parametrize("more", [0, 2])
def test_the_names_are_views_that_divide_the_packed_array(count, more):
    """Every number of a stroke belongs to one name; columns after those belong to none."""
    columns = StrokeArrays.empty(0).packed.shape[1]
    arrays = StrokeArrays(np.zeros((count, columns + more), np.float32))
    for number, (name, shape) in enumerate(SHAPES.items()):
        view = getattr(arrays, name)
        assert view.shape == (count, *shape)
        assert np.may_share_memory(view, arrays.packed) or not count
        view += number + 1
    found = np.unique(arrays.packed, return_counts=True)[1].tolist() if count else []
    assert sorted(found) == sorted(count * size for size in ([6, 2, 6, 2] + [more] * (more > 0))) or not count
    for name in SHAPES:
        assert len(np.unique(getattr(arrays, name))) == min(count, 1)


@pytest.mark.parametrize("name", SHAPES)
def test_writing_to_one_name_leaves_the_others(name):
    arrays = some(5)
    before, other = values_of(arrays), arrays.copy()
    getattr(arrays, name)[3] += 1
    for each, value in values_of(arrays).items():
        changed = (value != before[each]).reshape(5, -1)
        assert changed[3].all() == (each == name) and not np.delete(changed, 3, 0).any()
    assert np.array_equal(getattr(other, name), before[name]), "a copy is apart"


def test_parts_and_wholes():
    first, second = some(4, 1), some(3, 2)
    whole = join([first, StrokeArrays.zeros(0), second])
    assert len(whole) == 7
    for name in SHAPES:
        expected = np.concatenate([getattr(first, name), getattr(second, name)])
        assert np.array_equal(getattr(whole, name), expected)
        assert np.array_equal(getattr(whole[np.array([5, 0])], name), expected[[5, 0]])
        assert np.array_equal(getattr(whole[4:], name), expected[4:])
    whole.color[:] = 2
    assert first.color.max() < 1, "what is joined is copied"
    whole[4:].radius[:] = 3
    assert (whole.radius[4:] == 3).all() and (whole.radius[:4] != 3).all(), "a slice is a view"
    mask = np.arange(7) % 2 == 1
    whole[mask].alpha[:] = 4
    assert (whole.alpha != 4).all(), "a choice is a copy"
    whole[mask] = some(3, 5)
    assert np.array_equal(whole.points[mask], some(3, 5).points)
    assert np.array_equal(whole.points[:4:2], first.points[::2])


def test_scaling_is_for_lengths_alone_and_in_place():
    arrays = some(6)
    before = values_of(arrays)
    assert arrays.scale(2.5) is arrays
    for name, value in before.items():
        factor = np.float32(2.5 if name in ("points", "radius") else 1)
        assert np.array_equal(getattr(arrays, name), value * factor)
    arrays.scale(1 / 2.5)
    for name, value in before.items():
        assert getattr(arrays, name) == pytest.approx(value, rel=1e-6)


def test_strokes_and_back():
    """Lengths in pixels inside, in canvas units outside."""
    strokes = Strokes(**values_of(some(5)))
    arrays = StrokeArrays.of(strokes, 640)
    assert np.array_equal(arrays.points, strokes.points * np.float32(640))
    fields = arrays.as_fields(640)
    assert set(fields) == set(SHAPES)
    for name, value in fields.items():
        assert value == pytest.approx(getattr(strokes, name), rel=1e-6)
        assert not np.may_share_memory(value, arrays.packed)


def test_brushes_lie_one_after_the_other():
    maps = (np.ones((1, 1)), np.random.default_rng(0).random((3, 4)), np.ones((2, 5)))
    brushes = Brushes.gather(np.array([2, 0, 1, 1]), maps)
    assert brushes.of.tolist() == [2, 0, 1, 1]
    for brush, (begin, along, across, plain) in zip(maps, brushes.shapes.tolist(), strict=True):
        assert np.array_equal(brushes.data[begin : begin + along * across], brush.ravel().astype(np.float32))
        assert ((along, across), plain) == (brush.shape, int((brush == 1).all()))
    assert Brushes.round(3).of.tolist() == [0, 0, 0]
    assert Brushes.round(3).shapes[:, 3].tolist() == [1]
