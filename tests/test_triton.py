"""The Triton kernels against the readable twin, in Triton's interpreter, and compiled for a GPU that is not here."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'paintproc[models]'")
pytest.importorskip("triton", reason="triton is not installed; it comes with torch on Linux")

from triton_runs import FIELDS, GRADIENTS, STATE, problems_of  # noqa: E402

from paintproc.strokes.ops import reference  # noqa: E402

HERE = Path(__file__).parent
MOMENTS = (0.8, 0.9)
LEAVES = ("points", "radius", "color", "alpha")


def strokes_on(canvas: tuple[int, int], count: int, atlas: tuple[int, int, int], seed: int) -> dict[str, np.ndarray]:
    """The op's arguments for two pictures: with strokes half drawn, not drawn, bent back, opaque and away."""
    random = np.random.default_rng(seed)
    points = random.uniform(0, 1, (2, count, 1, 2)) + random.normal(0, 0.15, (2, count, 3, 2))
    reveal = np.ones((2, count))
    alpha = random.uniform(0.3, 0.9, (2, count, 2))
    if count > 4:
        points[:, 1] = points[:, 1, :1]
        points[0, 2] += 7
        points[1, 2, 2] = points[1, 2, 0] + 0.03
        reveal[:, 3], reveal[1, 0] = 0.6, 0
        alpha[:, 4] = 1
    arrays = {
        "points": points,
        "radius": random.uniform(0.05, 0.15, (2, count, 2)),
        "color": random.uniform(0, 1, (2, count, 2, 3)),
        "alpha": alpha,
        "brush": random.integers(0, atlas[0], (2, count)).astype(np.int32),
        "canvas": random.uniform(0, 1, (2, *canvas, 3)),
        "atlas": random.uniform(0.2, 0.9, atlas),
        "reveal": reveal,
        "upstream": random.normal(size=(2, *canvas, 3)),
    }
    return {name: a if a.dtype == np.int32 else a.astype(np.float32) for name, a in arrays.items()}


def problem(count: int, seed: int) -> dict[str, np.ndarray]:
    """What `descend` takes, of one picture."""
    random = np.random.default_rng(seed)
    rows = np.empty((count, 16), np.float32)
    rows[:, :6] = random.uniform(0, 24, (count, 1, 2)).repeat(3, 1).reshape(count, 6) + random.normal(0, 4, (count, 6))
    rows[:, 6:8], rows[:, 8:14] = random.uniform(2, 4, (count, 2)), random.uniform(0.1, 0.9, (count, 6))
    rows[:, 14:] = 0.8
    rate = np.full_like(rows, 0.3)
    rate[:, 8:] = 0.02
    low, high = np.full_like(rows, -9), np.full_like(rows, 60)
    low[:, 8:], high[:, 8:], high[:, 14:] = 0, 1, 0.805
    return {
        "rows": rows, "rate": rate, "low": low, "high": high,
        "mean": np.zeros_like(rows), "square": np.zeros_like(rows), "age": np.full(count, seed, np.int32),
        "brush": random.integers(0, 2, count).astype(np.int32),
        "brushes0": np.ones((1, 1), np.float32), "brushes1": random.uniform(0.3, 1, (3, 2)).astype(np.float32),
        "canvas": np.ones((20, 24, 3), np.float32), "target": random.uniform(0, 1, (20, 24, 3)).astype(np.float32),
        "aims": random.uniform(0, 1, (2, 20, 24, 3)).astype(np.float32),
        "aim_of": random.integers(0, 2, count).astype(np.int32),
        "factors": np.array([1.0, 0.4]), "own": np.array([0.0, 0.7]),
    }  # fmt: skip


@pytest.fixture(scope="module")
def given() -> dict[str, np.ndarray]:
    cases = {
        "textured": strokes_on((36, 40), 6, (2, 3, 4), 1),
        "round": strokes_on((18, 40), 5, (1, 1, 1), 2),
        "large": strokes_on((14, 15), 2, (1, 34, 18), 3),
        "none": strokes_on((17, 3), 0, (1, 1, 1), 4),
    }
    # the first picture's last strokes cover it all, twice: what is below is not looked at
    cases["round"]["radius"][0, 3:], cases["round"]["alpha"][0, 3:], cases["round"]["atlas"][:] = 1, 1, 1
    arrays = {f"{case}_{name}": array for case, found in cases.items() for name, array in found.items()}
    random = np.random.default_rng(5)
    arrays["target"] = random.uniform(0, 1, (2, 36, 40, 3)).astype(np.float32)
    arrays["aims"] = random.uniform(0, 1, (2, 3, 36, 40, 3)).astype(np.float32)
    arrays["aim_of"] = random.integers(0, 3, (2, 6)).astype(np.int32)
    return arrays | {f"p{k}_{name}": array for k in range(2) for name, array in problem(2 + k, k).items()}


@pytest.fixture(scope="module")
def found(given: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """What the interpreted kernels found; in a process of its own, since Triton is imported another way for them."""
    folder = tmp_path_factory.mktemp("triton")
    np.savez(folder / "in.npz", **given)
    settings = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join([str(HERE.parent), *sys.path])}
    command = [sys.executable, HERE / "triton_runs.py", "interpret", folder / "in.npz", folder / "out.npz"]
    subprocess.run(command, env=settings, check=True, timeout=280)
    return dict(np.load(folder / "out.npz"))


def tensors_of(given: dict[str, np.ndarray], case: str) -> dict[str, "torch.Tensor"]:
    """A case in float64, its floats as leaves of autograd."""
    tensors = {name: torch.from_numpy(given[f"{case}_{name}"]) for name in FIELDS}
    return {n: t.double().requires_grad_(n != "reveal") if t.is_floating_point() else t for n, t in tensors.items()}


def near(actual: np.ndarray, expected: "torch.Tensor", tolerance: float = 2e-5) -> None:
    wanted = expected.detach().numpy()
    assert actual.shape == wanted.shape
    assert np.abs(actual - wanted).max(initial=0) <= tolerance * max(1e-3, np.abs(wanted).max(initial=0))


@pytest.mark.parametrize("case", ["textured", "round", "large", "none"])
def test_values_and_gradients_equal_the_reference(case, given, found):
    tensors = tensors_of(given, case)
    picture = reference.rasterize(*tensors.values(), 1.0)
    near(found[f"{case}_picture"], picture)
    picture.backward(torch.from_numpy(given[f"{case}_upstream"]).double())
    for name in GRADIENTS:
        wanted = tensors[name].grad
        # where a stroke is opaque, what lies below is divided by 1/2048 of light: fewer digits are left
        tolerance = 1e-2 if case == "round" else 2e-5
        near(found[f"{case}_{name}"], torch.zeros_like(tensors[name]) if wanted is None else wanted, tolerance)
    if case == "textured":
        # the check can fail
        assert np.abs(found["textured_points"]).max() > 1
        with pytest.raises(AssertionError):
            near(1.001 * found["textured_points"], tensors["points"].grad)


def test_squared_error_and_removal(given, found):
    tensors = tensors_of(given, "textured")
    target = torch.from_numpy(given["target"]).double()

    def losses(reveal):
        picture = reference.rasterize(*(tensors | {"reveal": reveal}).values(), 1.0)
        return ((picture - target) ** 2).sum((1, 2, 3)) / 2

    loss = losses(tensors["reveal"])
    loss.sum().backward()
    for name in LEAVES:
        near(found[f"squared_{name}"], tensors[name].grad)
    assert np.array_equal(found["squared_picture"], found["textured_picture"])
    removal = torch.zeros(2, 6)
    with torch.no_grad():
        for i in range(6):
            without = tensors["reveal"].clone()
            without[:, i] = 0
            removal[:, i] = losses(without) - loss
    near(found["squared_removal"], removal, 1e-4)


def own_errors(tensors, aims, aim_of):
    """The gradients of each stroke's own error when it is laid, and what it changed, by the reference."""
    change = torch.zeros(aim_of.shape, dtype=torch.float64)
    total = 0
    for b, now in enumerate(tensors["canvas"].detach()):
        for i in range(aim_of.shape[1]):
            one = {n: tensors[n][b : b + 1, i : i + 1] for n in (*LEAVES, "brush", "reveal")}
            after = reference.rasterize(
                *(one[n] for n in LEAVES), one["brush"], now[None], tensors["atlas"].detach(), one["reveal"], 1.0
            )[0]
            aim = aims[b, aim_of[b, i]]
            own = ((after - aim) ** 2).sum() / 2
            change[b, i] = own.detach() - ((now - aim) ** 2).sum() / 2
            total, now = total + own, after.detach()
    total.backward()
    return [tensors[name].grad for name in LEAVES], change


def test_own_errors_in_turn(given, found):
    tensors = tensors_of(given, "textured")
    gradients, change = own_errors(tensors, torch.from_numpy(given["aims"]).double(), given["aim_of"])
    for name, gradient in zip(LEAVES, gradients, strict=True):
        near(found[f"turn_{name}"], gradient)
    near(found["turn_change"], change, 1e-4)
    assert np.abs(change.numpy()).max() > 1


def packed(gradients: "list[torch.Tensor]") -> np.ndarray:
    """Gradients [N, 16] by packed rows; the tensors were in units of 24 pixels."""
    points, radius, color, alpha = (g[0].reshape(g.shape[1], -1) for g in gradients)
    return torch.cat([points / 24, radius / 24, color, alpha], 1).numpy()


def test_descend_equals_steps_of_adam(given, found):
    for k, p in enumerate(problems_of(given, 2)):
        brushes = [torch.from_numpy(brush).double() for brush in p.brushes]
        target, aims = torch.from_numpy(p.target).double(), torch.from_numpy(p.aims).double()[None]
        for factor, weight in zip(p.factors, p.own, strict=True):
            leaves = [p.rows[:, :6].reshape(-1, 3, 2) / 24, p.rows[:, 6:8] / 24, p.rows[:, 8:14].reshape(-1, 2, 3)]
            leaves = [torch.from_numpy(leaf).double()[None].requires_grad_() for leaf in (*leaves, p.rows[:, 14:])]
            rest = {"brush": p.brush[None], "canvas": torch.from_numpy(p.canvas).double()[None], "atlas": brushes}
            rest["reveal"] = np.ones((1, len(p.rows)))
            picture = reference.rasterize(*leaves, *rest.values(), 1.0)[0]
            slope = packed(torch.autograd.grad(((picture - target) ** 2).sum() / 2, leaves))
            if weight:
                tensors = dict(zip(LEAVES, leaves, strict=True)) | rest
                tensors["atlas"] = torch.stack([torch.ones(3, 2).double(), brushes[1]])
                slope += weight * packed(own_errors(tensors, aims, p.aim_of[None])[0])
            p.age += 1
            p.mean = MOMENTS[0] * p.mean + (1 - MOMENTS[0]) * slope
            p.square = MOMENTS[1] * p.square + (1 - MOMENTS[1]) * slope**2
            mean, square = (
                m / (1 - moment ** p.age[:, None]) for m, moment in zip((p.mean, p.square), MOMENTS, strict=True)
            )
            p.rows = np.clip(p.rows - p.rate * factor * mean / (np.sqrt(square) + 1e-10), p.low, p.high)
        for name in STATE:
            wanted = getattr(p, name)
            assert np.abs(found[f"p{k}_{name}"] - wanted).max() <= 1e-3 * np.abs(wanted).max(), name
        assert np.abs(found[f"p{k}_rows"] - given[f"p{k}_rows"]).max() > 0.1
        assert found[f"p{k}_rows"][:, 14:].max() == np.float32(0.805)


def test_descents_of_several_sizes_equal_those_on_the_cpu(tmp_path):
    pytest.importorskip("paintproc.strokes.optimize", reason="there is no Descent to carry out")
    settings = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join([str(HERE.parent), *sys.path])}
    subprocess.run(
        [sys.executable, HERE / "triton_runs.py", "descents", tmp_path / "apart.json"],
        env=settings, check=True, timeout=280,
    )  # fmt: skip
    apart = json.loads((tmp_path / "apart.json").read_text())
    assert apart["moved"] > 0.1
    assert all(apart[name] < 2e-5 for name in ("strokes", "mean", "picture", "removal")), apart


def test_a_picture_at_a_time_gives_the_same_bytes(found):
    for name in (*LEAVES, "removal"):
        assert np.array_equal(found[f"again_{name}"], found[f"squared_{name}"])


def test_the_kernels_compile_for_a_gpu(tmp_path):
    settings = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    settings |= {
        "TRITON_CACHE_DIR": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), *sys.path]),
    }
    subprocess.run(
        [sys.executable, HERE / "triton_runs.py", "compile", tmp_path / "made.json"],
        env=settings,
        check=True,
        timeout=280,
    )
    made = [name.split()[0] for name in json.loads((tmp_path / "made.json").read_text())]
    kernels = {"measure", "list_strokes", "draw", "pull", "pull_atlas", "lay", "add_rows", "adam"}
    assert set(made) == kernels
    # both kinds of brush, and both passes of the lists
    assert all(len(list(group)) >= 2 for name, group in itertools.groupby(made) if name in ("draw", "pull", "lay"))
    assert made.count("list_strokes") == 2
