"""Launching the Triton kernels: what is laid out on the GPU before them, and what their results are added up to."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

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


def adam(
    rows: Tensor, found: Tensor, own: Tensor, mean: Tensor, square: Tensor, scales: list[Tensor], bounds: list[Tensor],
    weight: float, moments: tuple[float, ...],
) -> None:  # fmt: skip
    """One step of Adam within bounds, in place; `own`, gradient rows like `found`, are added `weight` times."""
    launch(
        kernels.adam, -(-rows.numel() // 1024), rows, found, own, mean, square, *scales, *bounds, rows.numel(),
        weight, *moments, OWN=bool(weight), BLOCK=1024, **SMALL,
    )  # fmt: skip
