"""The rasterizer under PyTorch's autograd."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'paintproc[models]'")

from test_rasterize import random_strokes, smooth_upstream  # noqa: E402

from paintproc.strokes.rasterize import rasterize as rasterize_arrays  # noqa: E402
from paintproc.strokes.rasterize import rasterize_gradients  # noqa: E402
from paintproc.strokes.torch import rasterize  # noqa: E402


def test_the_same_picture_and_gradients():
    strokes = random_strokes(9, seed=2)
    canvas = np.random.default_rng(1).random((48, 40, 3)).astype(np.float32)
    upstream = smooth_upstream((48, 40), 5)
    leaves = {
        name: torch.tensor(getattr(strokes, name), requires_grad=True)
        for name in ("points", "radius", "color", "alpha")
    }
    picture = rasterize(strokes, torch.from_numpy(canvas), **leaves)
    assert np.array_equal(picture.detach().numpy(), rasterize_arrays(strokes, canvas))
    (picture * torch.from_numpy(upstream)).sum().backward()
    _, gradients = rasterize_gradients(strokes, canvas, upstream)
    for name, leaf in leaves.items():
        assert np.array_equal(leaf.grad.numpy(), getattr(gradients, name))


def test_an_optimizer_brings_a_stroke_home():
    strokes = random_strokes(1, seed=3)
    canvas = torch.ones(48, 48, 3)
    target = rasterize(strokes, canvas)
    points = torch.tensor(strokes.points + 0.05, requires_grad=True)
    optimizer = torch.optim.Adam([points], lr=0.005)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = ((rasterize(strokes, canvas, points=points) - target) ** 2).sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.02 * losses[0]
