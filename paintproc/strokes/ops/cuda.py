"""The rasterizer on CUDA tensors: what `cpu.py` does on arrays, by the kernels of `triton_kernels.py`.

Every function runs without atomics and adds in a fixed order: the same tensors give the same bytes. CPU tensors are
taken too where Triton interprets its kernels (TRITON_INTERPRET=1), slowly, for tests.
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paintproc.strokes.adam import MOMENTS
from paintproc.strokes.ops.kernels import COLUMNS
from paintproc.strokes.ops.triton_launch import (
    Gradients,
    adam,
    draw,
    interpreted,
    lay,
    lay_out,
    pack,
    pull,
    pull_atlas,
    ready,
    unpack,
)  # fmt: skip

STATE = ("rows", "mean", "square", "age")
"""What `descend` changes."""


def forward(
    points: Tensor, radius: Tensor, color: Tensor, alpha: Tensor, brush: Tensor, canvas: Tensor, atlas: Tensor,
    reveal: Tensor, softness: float,
) -> Tensor:  # fmt: skip
    """The pictures [B, H, W, 3] of strokes laid on canvases; `reference.rasterize` says what is meant."""
    with ready(canvas):
        rows = pack(points, radius, color, alpha, canvas)
        return draw(lay_out(rows, brush, reveal, canvas, atlas, softness), canvas, atlas)


def backward(
    upstream: Tensor, points: Tensor, radius: Tensor, color: Tensor, alpha: Tensor, brush: Tensor, canvas: Tensor,
    atlas: Tensor, reveal: Tensor, softness: float, *, picture: Tensor | None = None, atlas_too: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of sum(picture * upstream): of points, radius, color, alpha, canvas and atlas.

    `picture` is what `forward` gave, if it is at hand. Without `atlas_too` the atlas's gradient is left at 0.
    """
    with ready(canvas):
        layout = lay_out(pack(points, radius, color, alpha, canvas), brush, reveal, canvas, atlas, softness)
        picture = draw(layout, canvas, atlas) if picture is None else picture.contiguous()
        found, of_canvas = pull(layout, atlas, picture, upstream)
        of_atlas = pull_atlas(layout, atlas, picture, upstream) if atlas_too else torch.zeros_like(atlas)
        return *unpack(found, canvas), of_canvas, of_atlas


def squared_error(
    points: Tensor, radius: Tensor, color: Tensor, alpha: Tensor, brush: Tensor, canvas: Tensor, atlas: Tensor,
    reveal: Tensor, target: Tensor, softness: float,
) -> tuple[Tensor, Gradients, Tensor]:  # fmt: skip
    """The pictures, the gradients of 1/2 sum (picture - target)^2, and each stroke's removal [B, N].

    The removal is how much that sum would grow without the stroke.
    """
    with ready(canvas):
        layout = lay_out(pack(points, radius, color, alpha, canvas), brush, reveal, canvas, atlas, softness)
        picture = draw(layout, canvas, atlas)
        found, _ = pull(layout, atlas, picture, picture - target)
        return picture, unpack(found, canvas), found[..., 16].contiguous()


def in_turn(
    points: Tensor, radius: Tensor, color: Tensor, alpha: Tensor, brush: Tensor, canvas: Tensor, atlas: Tensor,
    reveal: Tensor, aims: Tensor, aim_of: Tensor, softness: float,
) -> tuple[Gradients, Tensor]:  # fmt: skip
    """The gradients of each stroke's own error 1/2 sum (canvas - aim)^2 when it is laid; what it changed [B, N].

    Stroke i of picture b is judged by `aims[b, aim_of[b, i]]`, aims [B, A, H, W, 3], and sees the canvas under it as
    given.
    """
    with ready(canvas):
        layout = lay_out(pack(points, radius, color, alpha, canvas), brush, reveal, canvas, atlas, softness)
        found = lay(layout, canvas, atlas, aims.contiguous(), aim_of.to(torch.int32).contiguous())
        return unpack(found, canvas), found[..., 16].contiguous()


def descend(
    problems: Sequence[Any], *, softness: float = 1.0, evaluate: bool = False, device: str = "cuda"
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Optimise the strokes of several pictures of one size together, in steps; rows and state change in place.

    Each problem has rows [N, 16] packed in pixels, Adam's mean and square [N, 16] and age [N], rate, low and high
    [N, 16], brush [N] into its own `brushes`, canvas and target [H, W, 3]; aims [A, h, w, 3] and aim_of [N], or None;
    and, alike for all, `factors` [S] (of the step size) and `own` [S] (weight of the strokes' own errors). It may have
    `moments` (Adam's two), and `own_canvas` [h, w, 3] with `ratio`, where own errors are measured on a smaller canvas.

    With `evaluate`, the picture [H, W, 3] of each problem after the last step, and its gradient rows [N, 17].
    """
    if not problems:
        return []
    alike = {
        (p.canvas.shape, p.target.shape, tuple(p.factors), tuple(p.own), getattr(p, "ratio", 1.0)) for p in problems
    }
    if len(alike) > 1:
        raise ValueError("descend takes pictures of one size, with the same factors, weights and ratio")
    batch = _Batch(problems, torch.device("cpu" if interpreted() else device), softness)
    with ready(batch.canvas):
        for factor, weight in zip(problems[0].factors, problems[0].own, strict=True):
            batch.step(float(factor), float(weight))
        pictures, found = (tensor.cpu().numpy() for tensor in batch.slopes()) if evaluate else ((), ())
    batch.give_back(problems)
    return [(picture, rows[: len(p.rows)]) for picture, rows, p in zip(pictures, found, problems, strict=evaluate)]


def run_descents(descents: Sequence[Any], device: str = "cuda") -> list[Any]:
    """Carry out each `Descent` of `strokes/optimize.py`; what its `run` would return.

    Those of one size and plan run together. Strokes and state change in place.
    """
    from paintproc.strokes.ops.arrays import StrokeArrays
    from paintproc.strokes.ops.cpu import NOTHING, Composited

    groups: dict[Any, list[int]] = {}
    for k, d in enumerate(descents):
        own = None if d.own_aims is None else (d.own_aims.canvas.shape, d.own_aims.ratio)
        plan = (tuple(d.factors), tuple(d.own), d.evaluate, d.adam.moments)
        groups.setdefault((d.canvas.shape, own, *plan), []).append(k)
    answers: list[Any] = [None] * len(descents)
    for places in groups.values():
        problems = [_problem_of(descents[k]) for k in places]
        evaluate = descents[places[0]].evaluate
        found = descend(problems, evaluate=evaluate, device=device)
        for k, (picture, rows) in zip(places, found, strict=evaluate):
            answers[k] = Composited(picture, StrokeArrays(rows), NOTHING, NOTHING.ravel())
    return answers


def _problem_of(descent: Any) -> SimpleNamespace:
    """What `descend` takes of a `Descent`: its own arrays, not copies."""
    adam, bounds, brushes, own = descent.adam, descent.bounds, descent.brushes, descent.own_aims
    maps = tuple(
        brushes.data[begin : begin + along * across].reshape(along, across)
        for begin, along, across, *_ in brushes.shapes
    )
    aims = {"aims": None, "aim_of": None, "own": [0.0] * len(descent.factors)}
    if own is not None:
        aims = {
            "aims": own.aims,
            "aim_of": own.aim_of,
            "own": descent.own,
            "own_canvas": own.canvas,
            "ratio": own.ratio,
        }
    return SimpleNamespace(
        rows=descent.strokes.packed, mean=adam.mean, square=adam.square, age=adam.age, moments=adam.moments,
        rate=bounds.rate.packed, low=bounds.low.packed, high=bounds.high.packed, brush=brushes.of, brushes=maps,
        canvas=descent.canvas, target=descent.target, factors=descent.factors, **aims,
    )  # fmt: skip


class _Batch:
    """The problems of `descend` on the device, padded to the largest number of strokes."""

    def __init__(self, problems: Sequence[Any], device: torch.device, softness: float) -> None:
        count = max(len(p.rows) for p in problems)

        def padded(arrays: Sequence[np.ndarray], kind: type = np.float32, length: int = count) -> Tensor:
            whole = np.zeros((len(arrays), length, *arrays[0].shape[1:]), kind)
            for place, array in zip(whole, arrays, strict=True):
                place[: len(array)] = array
            return torch.from_numpy(whole).to(device)

        def gathered(name: str, kind: type = np.float32) -> Tensor:
            return padded([getattr(p, name) for p in problems], kind)

        first = problems[0]
        self.softness = softness
        self.moments = tuple(float(np.float32(moment)) for moment in getattr(first, "moments", MOMENTS))
        self.rows, self.mean, self.square = map(gathered, STATE[:3])
        self.age = gathered("age", np.int32)
        self.rate, self.low, self.high = map(gathered, ("rate", "low", "high"))
        self.reveal = padded([np.ones(len(p.rows)) for p in problems])
        self.canvas, self.target = (
            padded([getattr(p, name) for p in problems], length=len(first.canvas)) for name in ("canvas", "target")
        )
        maps, firsts = _one_atlas([p.brushes for p in problems])
        self.atlas = torch.from_numpy(maps).to(device)
        self.brush = padded([p.brush + begin for p, begin in zip(problems, firsts, strict=True)], np.int32)
        self.ratio = float(getattr(first, "ratio", 1.0))
        self.own: tuple[Tensor, Tensor, Tensor] | None = None
        if any(first.own):
            if any(getattr(p, "aims", None) is None for p in problems):
                raise ValueError("strokes whose own error counts have aims")
            canvases = [getattr(p, "own_canvas", p.canvas) for p in problems]
            aims = padded([p.aims for p in problems], length=max(len(p.aims) for p in problems))
            self.own = padded(canvases, length=len(canvases[0])), aims, gathered("aim_of", np.int32)

    def slopes(self) -> tuple[Tensor, Tensor]:
        """The pictures, and the gradient rows [B, N, 17] of their squared error."""
        layout = lay_out(self.rows, self.brush, self.reveal, self.canvas, self.atlas, self.softness)
        picture = draw(layout, self.canvas, self.atlas)
        return picture, pull(layout, self.atlas, picture, picture - self.target)[0]

    def own_slopes(self) -> Tensor:
        """The gradient rows [B, N, 17] of the strokes' own errors, as if measured on the canvas at work."""
        assert self.own is not None
        canvas, aims, aim_of = self.own
        to_own = self.rows.new_tensor([self.ratio] * 8 + [1.0] * 9)
        rows = self.rows * to_own[:COLUMNS]
        found = lay(
            lay_out(rows, self.brush, self.reveal, canvas, self.atlas, self.softness), canvas, self.atlas, aims, aim_of
        )
        return found * (to_own / self.ratio**2)

    def step(self, factor: float, weight: float) -> None:
        """One step of Adam within bounds."""
        found = self.slopes()[1]
        own = self.own_slopes() if weight else found
        self.age += 1
        age = self.age.float()
        first, second = (1 - moment**age for moment in self.moments)
        adam(
            self.rows, found, own, self.mean, self.square, [factor / first, 1 / second],
            [self.rate, self.low, self.high], weight, self.moments,
        )  # fmt: skip

    def give_back(self, problems: Sequence[Any]) -> None:
        for name in STATE:
            for p, values in zip(problems, getattr(self, name).cpu().numpy(), strict=True):
                array = getattr(p, name)
                array[...] = values[: len(array)]


def _one_atlas(tables: Sequence[Sequence[np.ndarray]]) -> tuple[np.ndarray, list[int]]:
    """The brushes of all problems as one atlas [K, h, w], and where each problem's begin in it.

    Equal tables are stored once. Brushes of several sizes are resampled, bilinearly, to the largest.
    """
    from paintproc.strokes.ops.reference import sample_brush

    maps: list[np.ndarray] = []
    firsts: list[int] = []
    seen: dict[tuple[bytes, ...], int] = {}
    for table in tables:
        key = tuple(brush.tobytes() + str(brush.shape).encode() for brush in table)
        if key not in seen:
            seen[key] = len(maps)
            maps += table
        firsts.append(seen[key])
    sizes = [max(brush.shape[axis] for brush in maps) for axis in (0, 1)]
    t, across = np.meshgrid(np.linspace(0, 1, sizes[0]), np.linspace(-1, 1, sizes[1]), indexing="ij")
    even = [brush if brush.shape == t.shape else sample_brush(brush, t, across) for brush in maps]
    return np.stack(even).astype(np.float32), firsts
