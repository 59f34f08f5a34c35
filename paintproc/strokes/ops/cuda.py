"""The rasterizer on CUDA tensors: what `cpu.py` does on arrays, by the kernels of `triton_kernels.py`.

Every function runs without atomics and adds in a fixed order: the same tensors give the same bytes. CPU tensors are
taken too where Triton interprets its kernels (TRITON_INTERPRET=1), slowly, for tests.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paintproc.errors import DeviceError, MissingError
from paintproc.strokes.ops.kernels import COLUMNS, TILE

try:
    from paintproc.strokes.ops import triton_kernels as kernels
except ImportError as error:
    raise MissingError("Triton is not installed; strokes on CUDA need it.", "Run: pip install triton") from error

Gradients = tuple[Tensor, Tensor, Tensor, Tensor]
"""Of points [B, N, 3, 2], radius [B, N, 2], color [B, N, 2, 3] and alpha [B, N, 2]."""

STATE = ("rows", "mean", "square", "age")
"""What `descend` changes."""
MOMENTS = (0.8, 0.9)
"""Decay of Adam's two running means, where a problem names none."""
MOST_SLOTS = 16_000_000
"""Gradient rows held at once, about 1 GB; pictures of a batch that need more are done one after the other."""
ATLAS_PROGRAMS = 512
"""How many parts the gradient of an atlas is added up in."""
DRAW = {"num_warps": 2, "enable_fp_fusion": True}
PULL = {"num_warps": 2, "enable_fp_fusion": True}
SMALL = {"num_warps": 4, "enable_fp_fusion": True}


@dataclass(frozen=True, eq=False)
class Layout:
    """Packed strokes and which tiles they meet; see `triton_kernels`."""

    rows: Tensor
    """[B, N, 16] in pixels."""
    brush: Tensor
    step: Tensor
    segments: Tensor
    boxes: Tensor
    counts: Tensor
    """[B N] tiles of each stroke, and thus its gradient rows."""
    slots: Tensor
    """[B N] its first gradient row."""
    picture_slots: tuple[int, ...]
    """[B + 1] the first gradient row of each picture."""
    start: Tensor
    """[B tiles + 1] into `entries`, for each tile."""
    entries: Tensor
    size: tuple[int, int, int, int]
    """Height and width in pixels, tiles, and tiles across."""
    softness: float

    def groups(self) -> Iterator[tuple[int, int]]:
        """Runs of pictures whose gradient rows are held together."""
        begin = 0
        for end in range(1, len(self.picture_slots)):
            last = end == len(self.picture_slots) - 1
            if last or self.picture_slots[end + 1] - self.picture_slots[begin] > MOST_SLOTS:
                yield begin, end
                begin = end


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
            if any(p.aims is None for p in problems):
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
        scales = [1 - moment**age for moment in self.moments]
        launch(
            kernels.adam, -(-self.rows.numel() // 1024), self.rows, found, own, self.mean, self.square,
            factor / scales[0], 1 / scales[1], self.rate, self.low, self.high, self.rows.numel(), weight,
            *self.moments, OWN=bool(weight), BLOCK=1024, **SMALL,
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


def interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def ready(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """The tensor's device is the current one; DeviceError where Triton cannot run on it."""
    if tensor.device.type == "cuda":
        return torch.cuda.device(tensor.device)
    if not interpreted():
        raise DeviceError(f"The Triton kernels take CUDA tensors, got one on {tensor.device}.")
    return contextlib.nullcontext()


def launch(kernel: Any, grid: int, *arguments: Any, **settings: Any) -> None:
    if grid > 0:
        kernel[(grid,)](*arguments, **settings)


def pack(points: Tensor, radius: Tensor, color: Tensor, alpha: Tensor, canvas: Tensor) -> Tensor:
    """Rows [B, N, 16] in pixels."""
    side = max(canvas.shape[1:3])
    batch, count = points.shape[:2]
    parts = (points.reshape(batch, count, 6) * side, radius * side, color.reshape(batch, count, 6), alpha)
    return torch.cat(parts, 2)


def unpack(found: Tensor, canvas: Tensor) -> Gradients:
    """Gradients in canvas units from rows [B, N, 17] in pixels."""
    side = max(canvas.shape[1:3])
    batch, count = found.shape[:2]
    return (
        (found[..., :6] * side).reshape(batch, count, 3, 2).contiguous(),
        (found[..., 6:8] * side).contiguous(),
        found[..., 8:14].reshape(batch, count, 2, 3).contiguous(),
        found[..., 14:16].contiguous(),
    )


def lay_out(rows: Tensor, brush: Tensor, reveal: Tensor, canvas: Tensor, atlas: Tensor, softness: float) -> Layout:
    """Which strokes meet which tile."""
    batch, count = rows.shape[:2]
    height, width = canvas.shape[1:3]
    across, down = -(-width // TILE), -(-height // TILE)
    tiles, total = across * down, batch * count

    def ints(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.int32, device=rows.device)

    step = torch.empty(total, device=rows.device)
    segments, boxes, counts = ints(total), ints(4, total), torch.zeros(total, dtype=torch.int32, device=rows.device)
    launch(
        kernels.measure, -(-total // 128), rows, reveal.contiguous(), step, segments, boxes, counts, total, across,
        down, float(softness), BLOCK=128, **SMALL,
    )  # fmt: skip
    ends = torch.cumsum(counts, 0, dtype=torch.int64)
    slots = ends - counts
    start = torch.zeros(batch * tiles + 1, dtype=torch.int64, device=rows.device)
    launch(
        kernels.list_strokes, batch * tiles, boxes, start[1:], ends, count, total, tiles, across,
        FILL=False, BLOCK=256, **SMALL,
    )  # fmt: skip
    start = torch.cumsum(start, 0)
    picture_ends = ends.view(batch, count)[:, -1].tolist() if count else [0] * batch
    entries = ints(picture_ends[-1] if batch else 0)
    launch(
        kernels.list_strokes, batch * tiles, boxes, start, entries, count, total, tiles, across,
        FILL=True, BLOCK=256, **SMALL,
    )  # fmt: skip
    brush = brush.to(torch.int32).clamp(0, len(atlas) - 1).contiguous()
    return Layout(
        rows, brush, step, segments, boxes, counts, slots, (0, *picture_ends), start, entries,
        (height, width, tiles, across), float(softness),
    )  # fmt: skip


def common(layout: Layout, atlas: Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments that the kernels over tiles share: what is read first, and sizes."""
    height, width, tiles, across = layout.size
    _, along, cells = atlas.shape
    read = {
        "rows": layout.rows, "step": layout.step, "segments": layout.segments, "brush": layout.brush,
        "atlas": atlas.contiguous(),
        "start": layout.start, "entries": layout.entries,
    }  # fmt: skip
    sizes = {
        "height": height, "width": width, "tiles": tiles, "across": across, "along": along, "cells": cells,
        "inverse_width": 0.5 / layout.softness, "TEXTURED": along * cells > 1,
    }  # fmt: skip
    return read, sizes


def draw(layout: Layout, canvas: Tensor, atlas: Tensor) -> Tensor:
    read, sizes = common(layout, atlas)
    canvas = canvas.contiguous()
    picture = torch.empty_like(canvas)
    launch(kernels.draw, len(canvas) * layout.size[2], **read, canvas=canvas, picture=picture, **sizes, **DRAW)
    return picture


def pull(layout: Layout, atlas: Tensor, picture: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient rows [B, N, 17] in pixels, and the gradient of the canvas."""
    upstream = upstream.contiguous()
    of_canvas = torch.empty_like(upstream)
    found = _by_tiles(layout, atlas, kernels.pull, picture=picture, upstream=upstream, canvas_gradient=of_canvas)
    return found, of_canvas


def lay(layout: Layout, canvas: Tensor, atlas: Tensor, aims: Tensor, aim_of: Tensor) -> Tensor:
    """Gradient rows [B, N, 17] in pixels of the strokes' own errors."""
    return _by_tiles(
        layout, atlas, kernels.lay, canvas=canvas.contiguous(), aims=aims, aim_of=aim_of, count=aims.shape[1]
    )


def _by_tiles(layout: Layout, atlas: Tensor, kernel: Any, **arguments: Any) -> Tensor:
    """Run `kernel` over all tiles, and add up each stroke's rows: [B, N, 17]."""
    read, sizes = common(layout, atlas)
    batch, count = layout.rows.shape[:2]
    tiles = layout.size[2]
    found = layout.rows.new_zeros(batch, count, COLUMNS + 1)
    for begin, end in layout.groups():
        first, last = layout.picture_slots[begin], layout.picture_slots[end]
        gradients = layout.rows.new_zeros(last - first, COLUMNS + 1)
        launch(
            kernel, (end - begin) * tiles, **read, boxes=layout.boxes, slots=layout.slots, gradients=gradients,
            first=begin * tiles, first_slot=first, total=batch * count, **arguments, **sizes, **PULL,
        )  # fmt: skip
        launch(
            kernels.add_rows, (end - begin) * count, gradients, layout.slots, layout.counts, found,
            begin * count, first, ROWS=16, **SMALL,
        )  # fmt: skip
    return found


def pull_atlas(layout: Layout, atlas: Tensor, picture: Tensor, upstream: Tensor) -> Tensor:
    """The gradient of the atlas."""
    read, sizes = common(layout, atlas)
    programs = len(picture) * layout.size[2]
    upstream = upstream.contiguous()
    parts = upstream.new_zeros(min(ATLAS_PROGRAMS, programs), *atlas.shape)
    cells = 32 if max(atlas.shape[1:]) > 16 else 16
    launch(
        kernels.pull_atlas, len(parts), **read, picture=picture, upstream=upstream, parts=parts, programs=programs,
        count=len(atlas), **sizes, CELLS=cells, **SMALL,
    )  # fmt: skip
    return parts.sum(0)
