"""The readable rasterizer: arrays and tensors, and its rules for ties."""

import subprocess
import sys

import numpy as np
import pytest
from test_rasterize import BRISTLES, random_strokes

from paintproc.strokes.brushes import ROUND
from paintproc.strokes.ops.reference import at_most, nearest_point, rasterize, rasterize_slowly

CORNER = [np.array(node, float) for node in [(0, 0), (1, 0), (1, 1)]]


def test_arrays_and_tensors_give_the_same_picture():
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'paintproc[models]'")
    strokes = random_strokes(5, seed=3, brushes=(ROUND, BRISTLES))
    canvas = np.random.default_rng(0).random((2, 20, 30, 3))
    rows = [np.float64(np.stack([a, a[::-1]])) for a in (strokes.points, strokes.radius, strokes.color, strokes.alpha)]
    reveal, brush = np.array([[1, 0.5, 0, 1, 1]] * 2), np.stack([strokes.brush] * 2)
    arrays = rasterize(*rows, brush, canvas, strokes.brushes, reveal, 1.0)
    maps = [torch.tensor(b, dtype=torch.float64) for b in strokes.brushes]
    tensors = rasterize(*map(torch.tensor, (*rows, brush, canvas)), maps, torch.tensor(reveal), 1.0)
    assert tensors.numpy() == pytest.approx(arrays, abs=1e-12)
    assert rasterize_slowly(strokes, canvas[0], reveal=reveal[0]) == pytest.approx(arrays[0], abs=1e-12)


def test_a_joint_belongs_to_the_segment_before():
    place, distance, lateral = nearest_point(CORNER, np.array([[(2.0, -1.0)]]))
    assert (place.item(), distance.item(), lateral.item()) == (0.5, pytest.approx(2**0.5), -1)
    # also where rounding has the second segment a little nearer
    random = np.random.default_rng(0)
    wedge = 0
    for nodes, offset in zip(random.normal(0, 1, (400, 3, 2)), random.normal(0, 1, (400, 2)), strict=True):
        (ax, ay), second = np.diff(nodes, axis=0)
        if ax * offset[0] + ay * offset[1] > 0 > second @ offset:
            place, _, lateral = nearest_point(list(nodes), (nodes[1] + offset)[None, None])
            assert place.item() == 0.5
            assert lateral.item() == pytest.approx((ax * offset[1] - ay * offset[0]) / np.hypot(ax, ay))
            wedge += 1
    assert wedge > 50


def test_the_first_of_two_nearest_segments_wins():
    place, distance, _ = nearest_point(CORNER, np.array([[(0.5, 0.5)]]))
    assert (place.item(), distance.item()) == (0.25, 0.5)
    place, _, _ = nearest_point(CORNER, np.array([[(0.6, 0.5)]]))
    assert place.item() == 0.75


def test_a_segment_without_length_is_its_point():
    place, distance, lateral = nearest_point([np.ones(2), np.ones(2)], np.array([[(1.0, 3.0), (1.0, 1.0)]]))
    assert place.tolist() == [[0, 0]]
    assert distance.tolist() == [[2, 0]]
    assert lateral.tolist() == [[0, 0]]


def test_the_cap_holds_values_and_lets_slopes_through():
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'paintproc[models]'")
    values = torch.tensor([0.5, 2.0], dtype=torch.float64, requires_grad=True)
    capped = at_most(values, 0.75)
    assert capped.tolist() == [0.5, 0.75]
    assert torch.autograd.grad(capped.sum(), values)[0].tolist() == [1, 1]


def test_it_needs_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np, paintproc\n"
        "from paintproc.strokes.ops.reference import rasterize_slowly\n"
        "ends = np.full((1, 2), 0.2)\n"
        "strokes = paintproc.Strokes(np.full((1, 3, 2), 0.5), ends, np.zeros((1, 2, 3)), 5 * ends)\n"
        "assert rasterize_slowly(strokes, np.ones((9, 9, 3))).min() < 0.1"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
