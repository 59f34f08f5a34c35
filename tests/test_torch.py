"""The stroke op under PyTorch: autograd, torch.compile, training through it."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'paintproc[models]'")

from test_rasterize import BRISTLES, random_strokes  # noqa: E402

from paintproc.errors import DeviceError  # noqa: E402
from paintproc.strokes.brushes import ROUND  # noqa: E402
from paintproc.strokes.ops.reference import rasterize_slowly  # noqa: E402
from paintproc.strokes.torch import rasterize, tensors_of  # noqa: E402

LEAVES = ("points", "radius", "color", "alpha", "canvas", "atlas")
FLOATS = [torch.float32, torch.float64]


def example(dtype, batch=2, count=4, size=(20, 26), atlas=(2, 3, 4), seed=0) -> dict:
    """Arguments of the op: strokes bent, half drawn and, the last one, not drawn."""
    random = np.random.default_rng(seed)
    points = random.uniform(0, 1, (batch, count, 1, 2)) + random.normal(0, 0.15, (batch, count, 3, 2))
    reveal = np.ones((batch, count))
    reveal[:, 1:2], reveal[:, 3:] = 0.6, 0
    arrays = {
        "points": points, "radius": random.uniform(0.08, 0.2, (batch, count, 2)),
        "color": random.uniform(0, 1, (batch, count, 2, 3)), "alpha": random.uniform(0.3, 0.9, (batch, count, 2)),
        "canvas": random.uniform(0, 1, (batch, *size, 3)), "atlas": random.uniform(0.3, 0.9, atlas),
    }  # fmt: skip
    tensors = {name: torch.tensor(a, dtype=dtype).requires_grad_() for name, a in arrays.items()}
    brush = torch.tensor(random.integers(0, atlas[0], (batch, count)))
    return tensors | {"brush": brush, "reveal": torch.tensor(reveal, dtype=dtype)}


def gradients_of(given: dict, seed: int = 3) -> dict:
    picture = rasterize(**given)
    random = torch.Generator().manual_seed(seed)
    upstream = torch.randn(picture.shape, generator=random, dtype=torch.float64).to(picture.dtype)
    return dict(zip(LEAVES, torch.autograd.grad(picture, [given[n] for n in LEAVES], upstream), strict=True))


def near(actual, expected, tolerance: float = 1e-4) -> None:
    assert actual.shape == expected.shape
    assert (actual.double() - expected.double()).abs().max() <= tolerance * max(1e-3, expected.abs().max())


@pytest.mark.parametrize("atlas", [(1, 1, 1), (2, 3, 4)])
def test_the_fast_op_equals_the_reference(atlas):
    fast, slow = (example(dtype, count=5, size=(37, 50), atlas=atlas) for dtype in FLOATS)
    near(rasterize(**fast), rasterize(**slow), 1e-5)
    expected = gradients_of(slow)
    for name, gradient in gradients_of(fast).items():
        near(gradient, expected[name])
    with pytest.raises(AssertionError):
        near(gradient * 1.001, expected[name])


def test_the_cap_of_opacity_lets_gradients_through():
    fast, slow = (example(dtype) for dtype in FLOATS)
    for given in (fast, slow):
        given["alpha"].data.fill_(1)
        given["atlas"].data.fill_(1)
    expected = gradients_of(slow)
    assert expected["alpha"].abs().max() > 0.1
    for name, gradient in gradients_of(fast).items():
        # what lies below is divided by 1/2048 of light: float32 keeps fewer digits
        near(gradient, expected[name], 2e-3)


@pytest.mark.parametrize("dtype", FLOATS)
def test_one_picture_without_a_batch(dtype):
    given = example(dtype)
    whole = rasterize(**given)
    for b in range(2):
        one = {name: tensor if name == "atlas" else tensor[b] for name, tensor in given.items()}
        assert torch.equal(rasterize(**one), whole[b])


def test_strokes_as_tensors():
    strokes = random_strokes(6, seed=2, brushes=(ROUND, BRISTLES))
    canvas = np.random.default_rng(1).random((24, 31, 3))
    tensors = tensors_of(strokes, dtype=torch.float64)
    assert tensors["atlas"].shape == (2, *BRISTLES.shape)
    picture = rasterize(**tensors, canvas=torch.tensor(canvas))
    assert picture.numpy() == pytest.approx(rasterize_slowly(strokes, canvas), abs=1e-6)


@pytest.mark.parametrize("dtype", FLOATS)
def test_no_strokes_leave_the_canvas(dtype):
    given = example(dtype, count=0)
    picture = rasterize(**given)
    assert torch.equal(picture, given["canvas"])
    assert picture.data_ptr() != given["canvas"].data_ptr()
    gradients = gradients_of(given)
    assert gradients["canvas"].abs().sum() > 0
    assert gradients["atlas"].abs().sum() == 0


@pytest.mark.parametrize("dtype", FLOATS)
def test_values_past_their_range_stay_finite(dtype):
    given = example(dtype)
    for name, value in (("alpha", 1.7), ("color", 3.0), ("atlas", -0.4)):
        given[name].data[0] = value
    given["radius"].data[0, 0] = -0.1
    given["points"].data[1, 0] = given["points"].data[1, 0, :1]
    assert rasterize(**given).isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients_of(given).values())


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # by opcheck itself
@pytest.mark.parametrize("dtype", FLOATS)
def test_torch_accepts_the_op(dtype):
    given = example(dtype, size=(9, 8))
    order = ("points", "radius", "color", "alpha", "brush", "canvas", "atlas", "reveal")
    arguments = [given[name].int() if name == "brush" else given[name] for name in order]
    torch.library.opcheck(torch.ops.paintproc.rasterize.default, (*arguments, 1.0))


def test_double_precision_gradients_are_the_derivatives():
    given = example(torch.float64, batch=1, count=2, size=(5, 6), atlas=(2, 2, 3), seed=1)

    def draw(*leaves):
        return rasterize(**dict(zip(LEAVES, leaves, strict=True)), brush=given["brush"], reveal=given["reveal"])

    def wrong(*leaves):
        return draw(leaves[0], leaves[1] + 0.1 * leaves[1].detach(), *leaves[2:])

    leaves = [given[name] for name in LEAVES]
    assert torch.autograd.gradcheck(draw, leaves, atol=1e-4)
    assert not torch.autograd.gradcheck(wrong, leaves, atol=1e-4, raise_exception=False)


@pytest.mark.parametrize("dtype", FLOATS)
def test_compiled_without_a_break(dtype):
    given = example(dtype)

    def loss(tensors):
        return (rasterize(**tensors) * 2 - 1).square().mean()

    expected = torch.autograd.grad(loss(given), [given[name] for name in LEAVES])
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    value = compiled(given)
    assert value.item() == pytest.approx(loss(given).item())
    for actual, wanted in zip(torch.autograd.grad(value, [given[n] for n in LEAVES]), expected, strict=True):
        near(actual, wanted)


@pytest.mark.parametrize("name", ["points", "radius", "color", "alpha", "canvas", "atlas"])
def test_a_step_in_place_before_the_backward_pass_is_an_error(name):
    given = example(torch.float32)
    loss = rasterize(**given).sum()
    with torch.no_grad():
        given[name].add_(0.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_what_does_not_fit_is_refused():
    given = example(torch.float32)
    for name, value, match in [
        ("radius", given["radius"][:, :2], "radius has shape"),
        ("canvas", given["canvas"][..., :2], "canvas has shape"),
        ("canvas", given["canvas"][0], "points are"),
        ("brush", given["brush"][:1], "brush has shape"),
        ("reveal", given["reveal"][0], "reveal has shape"),
        ("atlas", given["atlas"][0], "an atlas is"),
    ]:
        with pytest.raises(ValueError, match=match):
            rasterize(**(given | {name: value}))
    with pytest.raises(TypeError, match="all float32 or all float64"):
        rasterize(**(given | {"alpha": given["alpha"].double()}))
    with pytest.raises(TypeError, match="all float32 or all float64"):
        rasterize(**{name: t.half() if t.is_floating_point() else t for name, t in given.items()})
    with pytest.raises(TypeError, match="integer"):
        rasterize(**(given | {"brush": given["brush"].float()}))
    with pytest.raises(DeviceError, match="CPU or on one CUDA device"):
        rasterize(**(given | {"canvas": given["canvas"].to("meta")}))


def test_only_wanted_gradients_arrive():
    given = {name: tensor.detach() for name, tensor in example(torch.float32).items()}
    given["color"].requires_grad_()
    rasterize(**given).sum().backward()
    assert given["color"].grad is not None
    assert all(tensor.grad is None for name, tensor in given.items() if name != "color")


def test_an_optimizer_brings_a_stroke_home():
    tensors = tensors_of(random_strokes(1, seed=3))
    canvas = torch.ones(48, 48, 3)
    target = rasterize(**tensors, canvas=canvas)
    points = (tensors.pop("points") + 0.05).requires_grad_()
    optimizer = torch.optim.Adam([points], lr=0.005)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = ((rasterize(points, **tensors, canvas=canvas) - target) ** 2).sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.02 * losses[0]


def test_a_brush_and_a_canvas_are_learned():
    random = np.random.default_rng(4)
    given = {name: tensor.detach() for name, tensor in example(torch.float32, batch=6, count=5, size=(32, 32)).items()}
    given["reveal"].fill_(1)
    given["radius"].mul_(1.2)
    texture = torch.tensor(random.uniform(0.2, 0.9, (2, 4, 5)), dtype=torch.float32)
    paper = torch.tensor(random.uniform(0.2, 0.8, (1, 32, 32, 3)), dtype=torch.float32)
    target = rasterize(**(given | {"atlas": texture, "canvas": paper.expand(6, -1, -1, -1)}))
    atlas, canvas = torch.full_like(texture, 0.5).requires_grad_(), torch.full_like(paper, 0.5).requires_grad_()
    optimizer = torch.optim.Adam([atlas, canvas], lr=0.03)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        picture = rasterize(**(given | {"atlas": atlas, "canvas": canvas.expand(6, -1, -1, -1)}))
        loss = ((picture - target) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 200
    assert (atlas - texture).abs().mean() < 0.1 * (0.5 - texture).abs().mean()
    assert (canvas - paper).abs().mean() < 0.1 * (0.5 - paper).abs().mean()


def test_paintings_that_wait_together_are_those_painted_alone(monkeypatch):
    """On a device the descents of all pictures run together; here each of them runs on the CPU instead."""
    from paintproc.strokes.fit import fit, fit_batch
    from paintproc.strokes.ops import cuda

    asked = []

    def run_descents(descents, device):
        asked.append(len(descents))
        return [descent.run() for descent in descents]

    monkeypatch.setattr(cuda, "run_descents", run_descents)
    pictures = [np.random.default_rng(k).random((40, 30 + 4 * k, 3)).astype(np.float32) for k in range(3)]
    together = fit_batch(pictures, 25, device="cuda")
    assert set(asked) == {3}
    for picture, strokes in zip(pictures, together, strict=True):
        assert np.array_equal(strokes.points, fit(picture, 25).points)
