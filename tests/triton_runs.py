"""What test_triton.py needs from another process.

TRITON_INTERPRET=1 python triton_runs.py interpret IN.npz OUT.npz     the Triton kernels, on the CPU
TRITON_INTERPRET=1 python triton_runs.py descents OUT.json            how far `run_descents` is from the CPU
python triton_runs.py compile OUT.json                                the same launches, compiled for sm_90
"""

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch

from paintproc.strokes.ops import cuda, triton_launch

FIELDS = ("points", "radius", "color", "alpha", "brush", "canvas", "atlas", "reveal")
GRADIENTS = ("points", "radius", "color", "alpha", "canvas", "atlas")
STATE = ("rows", "mean", "square", "age")


def problems_of(given: dict[str, np.ndarray], count: int) -> list[Any]:
    """The problems of `descend` from the arrays `p0_rows`, `p0_mean` ... and `p0_brushes0` ..."""
    problems = []
    for k in range(count):
        fields: dict[str, Any] = {
            name.split("_", 1)[1]: np.array(value) for name, value in given.items() if name.startswith(f"p{k}_")
        }
        fields["brushes"] = tuple(fields.pop(f"brushes{j}") for j in range(2))
        problems.append(types.SimpleNamespace(**fields))
    return problems


def run_all(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    found: dict[str, Any] = {}
    for case in ("textured", "round", "large", "none"):
        tensors = [torch.from_numpy(given[f"{case}_{name}"]) for name in FIELDS]
        upstream = torch.from_numpy(given[f"{case}_upstream"])
        found[f"{case}_picture"] = cuda.forward(*tensors, 1.0)
        for name, gradient in zip(GRADIENTS, cuda.backward(upstream, *tensors, 1.0), strict=True):
            found[f"{case}_{name}"] = gradient
    tensors = [torch.from_numpy(given[f"textured_{name}"]) for name in FIELDS]
    target, aims, aim_of = (torch.from_numpy(given[name]) for name in ("target", "aims", "aim_of"))
    picture, gradients, removal = cuda.squared_error(*tensors, target, 1.0)
    found |= {f"squared_{name}": value for name, value in zip(GRADIENTS[:4], gradients, strict=True)}
    found |= {"squared_picture": picture, "squared_removal": removal}
    # the gradient rows of one picture at a time: the same bytes
    whole, triton_launch.MOST_SLOTS = triton_launch.MOST_SLOTS, 1
    _, again, removal = cuda.squared_error(*tensors, target, 1.0)
    found |= {f"again_{name}": value for name, value in zip(GRADIENTS[:4], again, strict=True)}
    found["again_removal"], triton_launch.MOST_SLOTS = removal, whole
    gradients, change = cuda.in_turn(*tensors, aims, aim_of, 1.0)
    found |= {f"turn_{name}": value for name, value in zip(GRADIENTS[:4], gradients, strict=True)}
    found["turn_change"] = change
    problems = problems_of(given, 2)
    cuda.descend(problems)
    found |= {f"p{k}_{name}": getattr(p, name) for k, p in enumerate(problems) for name in STATE}
    return {name: value.numpy() if isinstance(value, torch.Tensor) else value for name, value in found.items()}


def descent_of(count: int, seed: int, size: tuple[int, int], own: bool) -> Any:
    """A `Descent` of two steps: strokes of two brushes, one of them fixed, and perhaps aims of their own."""
    from paintproc.strokes.adam import Adam, Bounds
    from paintproc.strokes.ops.arrays import Brushes, StrokeArrays
    from paintproc.strokes.optimize import Descent, OwnAims

    random = np.random.default_rng(seed)
    strokes, bounds = StrokeArrays.empty(count), Bounds.empty(count)
    strokes.points[:], strokes.radius[:] = random.uniform(0, 20, (count, 3, 2)), 3
    strokes.color[:], strokes.alpha[:] = random.uniform(0, 1, (count, 2, 3)), 0.8
    for part, length, rest in ((bounds.rate, 0.3, 0.02), (bounds.low, -50, 0), (bounds.high, 90, 1)):
        part.packed[:, :8], part.packed[:, 8:] = length, rest
    for part, value in ((bounds.rate, 0), (bounds.low, -np.inf), (bounds.high, np.inf)):
        part.packed[1:2] = value
    maps = (np.ones((1, 1), np.float32), random.uniform(0.3, 1, (3, 2)).astype(np.float32))
    brushes = Brushes.gather(random.integers(0, 2, count).astype(np.int32), maps)
    canvas, target = np.ones((*size, 3), np.float32), random.uniform(0, 1, (*size, 3)).astype(np.float32)
    aims = OwnAims(random.uniform(0, 1, (2, 10, 12, 3)).astype(np.float32), canvas[::2, ::2].copy(), brushes.of, 0.5)
    return Descent(
        strokes, Adam(count), bounds, brushes, canvas, target, factors=[1.0, 0.4], own=[0.6 * own, 0.0],
        own_aims=aims if own else None, evaluate=own,
    )  # fmt: skip


def compare_descents() -> dict[str, float]:
    """The largest differences between descents on the Triton kernels and on the CPU."""
    plans = [(2, 0, (20, 24), True), (3, 1, (20, 24), True), (2, 2, (17, 16), False), (0, 3, (20, 24), True)]
    here, there, before = ([descent_of(*plan) for plan in plans] for _ in range(3))
    answers, expected = cuda.run_descents(there), [descent.run() for descent in here]
    assert [answer is None for answer in answers] == [answer is None for answer in expected]
    pairs = list(zip(there, here, strict=True))
    looks = [(a, b) for a, b in zip(answers, expected, strict=True) if a is not None]

    def largest(differences: list[np.ndarray]) -> float:
        return max(float(np.abs(d).max(initial=0)) for d in differences)

    return {
        "strokes": largest([a.strokes.packed - b.strokes.packed for a, b in pairs]),
        "mean": largest([a.adam.mean - b.adam.mean for a, b in pairs]),
        "picture": largest([a.picture - b.picture for a, b in looks]),
        "removal": largest([a.removal - b.removal for a, b in looks]),
        "moved": largest([a.strokes.packed - b.strokes.packed for a, b in zip(there, before, strict=True)]),
    }


def compile_all() -> list[str]:
    """Every launch of one small call of each function, compiled instead of run; the kernels' names."""
    import contextlib

    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kinds = {torch.float32: "*fp32", torch.int32: "*i32", torch.int64: "*i64"}
    done: dict[str, bool] = {}

    def spelled(value: Any) -> str:
        return kinds[value.dtype] if isinstance(value, torch.Tensor) else "fp32" if isinstance(value, float) else "i32"

    def compile_it(kernel: Any, grid: int, *arguments: Any, **settings: Any) -> None:
        given = dict(zip(kernel.arg_names, arguments, strict=False))
        given |= {name: value for name, value in settings.items() if name in kernel.arg_names}
        fixed = {p.name: given[p.name] for p in kernel.params if p.is_constexpr}
        signature = {name: "constexpr" if name in fixed else spelled(given[name]) for name in kernel.arg_names}
        key = f"{kernel.__name__} {fixed} {signature}"
        if key not in done:
            options = {name: value for name, value in settings.items() if name not in kernel.arg_names}
            source = ASTSource(kernel, signature=signature, constexprs=fixed)
            made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
            done[key] = len(made.asm["cubin"]) > 0

    triton_launch.launch, cuda.ready = compile_it, lambda tensor: contextlib.nullcontext()
    for cells in (1, 3):
        sizes = {
            "points": (1, 2, 3, 2), "radius": (1, 2, 2), "color": (1, 2, 2, 3), "alpha": (1, 2, 2), "brush": (1, 2),
            "canvas": (1, 5, 4, 3), "atlas": (1, cells, 2 * cells - 1), "reveal": (1, 2),
        }  # fmt: skip
        tensors = [torch.zeros(sizes[name], dtype=torch.int32 if name == "brush" else None) for name in FIELDS]
        cuda.forward(*tensors, 1.0)
        cuda.backward(tensors[5], *tensors, 1.0)
        cuda.in_turn(*tensors, torch.zeros(1, 2, 5, 4, 3), torch.zeros(1, 2, dtype=torch.int32), 1.0)
    row, one = torch.zeros(2, 16), torch.zeros(2)
    for weight in (0.0, 0.5):
        triton_launch.adam(row, row, row, row, row, [one, one], [row, row, row], weight, (0.8, 0.9))
    return sorted(name for name, made in done.items() if made)


if __name__ == "__main__":
    if sys.argv[1] == "interpret":
        np.savez(sys.argv[3], **run_all(dict(np.load(sys.argv[2]))))
    else:
        work = compare_descents if sys.argv[1] == "descents" else compile_all
        Path(sys.argv[2]).write_text(json.dumps(work()))
