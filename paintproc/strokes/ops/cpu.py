"""The stroke op on the CPU: the numba kernels, divided among threads.

Every array is float32 and C-contiguous. Lengths are in pixels for `composite`, in canvas units for
`forward` and `backward`, which take batches.
"""

from dataclasses import dataclass

import numpy as np

from paintproc.strokes.ops import kernels
from paintproc.strokes.ops.arrays import Brushes, StrokeArrays
from paintproc.threads import divide, in_parallel

NOTHING = np.zeros((0, 0, 3), np.float32)
TILES_EACH = 4
"""Rows of tiles that share one sum of brush gradients: so many sums, whatever the number of threads."""


@dataclass(frozen=True, eq=False)
class Composited:
    """What `composite` gives back.

    picture    [H, W, 3]
    gradients  [N, 17]    one for each parameter (lengths in pixels), and what the stroke's removal costs;
                          [0, 17] where none were asked for
    canvas     [H, W, 3]  derivative by the canvas, where asked for
    brushes    [cells]    derivative by the brushes' data, where asked for
    """

    picture: np.ndarray
    gradients: StrokeArrays
    canvas: np.ndarray
    brushes: np.ndarray

    @property
    def removal(self) -> np.ndarray:
        """How much the loss grows without each stroke [N]: exact, since the picture is linear in its opacity."""
        return self.gradients.packed[:, kernels.COLUMNS]


def composite(
    strokes: StrokeArrays,
    brushes: Brushes,
    canvas: np.ndarray,
    *,
    target: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    upstream: np.ndarray | None = None,
    reveal: np.ndarray | None = None,
    softness: float = kernels.SOFTNESS,
    canvas_gradient: bool = False,
    brush_gradients: bool = False,
    in_place: bool = False,
) -> Composited:
    """Lay `strokes`, in pixels, over `canvas` [H, W, 3].

    With `target` [H, W, 3] also the gradients of 1/2 sum weight (picture - target)^2, `weight` [H, W];
    with `upstream` [H, W, 3] those of sum(picture * upstream). `canvas_gradient` and `brush_gradients`
    ask for those by the canvas and by the brushes as well; the latter take several times as long as
    all others. `in_place`: the picture is drawn into `canvas` itself, which is faster where few
    strokes are laid; not with gradients. ValueError where shapes do not fit.
    """
    height, width = canvas.shape[:2]
    mode, wanted = kernels.FORWARD, canvas
    for name, value, its_mode in (("target", target, kernels.SQUARED_ERROR), ("upstream", upstream, kernels.UPSTREAM)):
        if value is not None:
            if value.shape != canvas.shape:
                raise ValueError(f"{name} has shape {value.shape}, the canvas {canvas.shape}")
            mode, wanted = its_mode, np.ascontiguousarray(value, np.float32)
    weight = NOTHING[:, :, 0] if weight is None else np.ascontiguousarray(weight, np.float32)
    if weight.size and weight.shape != (height, width):
        raise ValueError(f"weight has shape {weight.shape}, expected {(height, width)}")
    rows = strokes.packed
    reveal = np.ones(len(rows), np.float32) if reveal is None else reveal
    edge = np.float32(softness)
    nodes, first, start, pairs = find_tiles(rows, reveal, (height, width), softness)
    picture = canvas if in_place else np.empty_like(canvas)
    found = np.zeros((0 if mode == kernels.FORWARD else len(pairs), kernels.COLUMNS + 1), np.float32)
    by_canvas = np.empty_like(canvas) if canvas_gradient else NOTHING
    across = -(-width // kernels.TILE)
    ends = divide(start, 64)
    if brush_gradients:
        ends = sorted({*range(0, len(start) - 1, TILES_EACH * across), len(start) - 1})
    sums = np.zeros((len(ends) - 1, brushes.data.size if brush_gradients else 0), np.float32)
    place = {begin: k for k, begin in enumerate(ends)}

    def draw(begin: int, end: int) -> None:
        kernels.composite(
            nodes, first, rows, reveal, brushes.of, brushes.shapes, brushes.data, start, pairs,
            canvas, wanted, weight, edge, mode, in_place, begin, end, picture, found, by_canvas, sums[place[begin]],
        )  # fmt: skip

    in_parallel(draw, ends)
    total = kernels.add_up(found, pairs[: len(found)], len(rows) if len(found) or mode else 0)
    return Composited(picture, StrokeArrays(total), by_canvas, sums.sum(0))


def find_tiles(
    rows: np.ndarray, reveal: np.ndarray, size: tuple[int, int], softness: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Polylines of packed strokes (nodes, first), and which strokes touch which tile (start, pairs); see `kernels`."""
    edge = np.float32(softness)
    height, width = size
    nodes, first = kernels.flatten(rows, reveal)
    boxes = kernels.bounding_boxes(nodes, first, rows, edge)
    spans = boxes[:, 1::2] - boxes[:, ::2] + np.float32(kernels.TILE)
    work_before = np.concatenate([[0.0], np.cumsum(np.minimum(spans[:, 0] * spans[:, 1], height * width))])

    def find(begin: int, end: int) -> np.ndarray:
        return kernels.find_pairs(nodes, first, rows, reveal, boxes, edge, height, width, begin, end)

    found = np.concatenate(in_parallel(find, divide(work_before, 1 << 19)))
    tiles = -(-height // kernels.TILE) * -(-width // kernels.TILE)
    return nodes, first, *kernels.sort_by_tile(found, tiles)


def forward(
    points: np.ndarray,
    radius: np.ndarray,
    color: np.ndarray,
    alpha: np.ndarray,
    brush: np.ndarray,
    canvas: np.ndarray,
    atlas: np.ndarray,
    reveal: np.ndarray,
    softness: float,
) -> np.ndarray:
    """The pictures [B, H, W, 3] of a batch; see `strokes/torch.py` for the arguments."""
    pictures = np.empty_like(canvas)
    for b, (strokes, brushes, shown, _) in enumerate(
        _batch(points, radius, color, alpha, brush, canvas, atlas, reveal)
    ):
        pictures[b] = composite(strokes, brushes, canvas[b], reveal=shown, softness=softness).picture
    return pictures


def backward(
    upstream: np.ndarray,
    points: np.ndarray,
    radius: np.ndarray,
    color: np.ndarray,
    alpha: np.ndarray,
    brush: np.ndarray,
    canvas: np.ndarray,
    atlas: np.ndarray,
    reveal: np.ndarray,
    softness: float,
    *,
    atlas_too: bool = True,
) -> tuple[np.ndarray, ...]:
    """Derivatives of sum(pictures * upstream) by points, radius, color, alpha, canvas and atlas, in their shapes."""
    by_strokes = [np.zeros_like(array) for array in (points, radius, color, alpha)]
    by_canvas, by_atlas = np.empty_like(canvas), np.zeros_like(atlas)
    side = np.float32(max(canvas.shape[1:3]))
    for b, (strokes, brushes, shown, begun) in enumerate(
        _batch(points, radius, color, alpha, brush, canvas, atlas, reveal)
    ):
        done = composite(
            strokes, brushes, canvas[b], upstream=upstream[b], reveal=shown, softness=softness,
            canvas_gradient=True, brush_gradients=atlas_too,
        )  # fmt: skip
        found = done.gradients.scale(side)
        for total, part in zip(by_strokes, (found.points, found.radius, found.color, found.alpha), strict=True):
            total[b, begun] = part
        by_canvas[b] = done.canvas
        if atlas_too:
            by_atlas += done.brushes.reshape(atlas.shape)
    return (*by_strokes, by_canvas, by_atlas)


def _batch(points, radius, color, alpha, brush, canvas, atlas, reveal):  # type: ignore[no-untyped-def]
    """For each picture its strokes that have begun, in pixels, their brushes, their reveal, and where they stand."""
    side = max(canvas.shape[1:3])
    for b in range(len(canvas)):
        begun = np.flatnonzero(reveal[b] > 0)
        strokes = StrokeArrays.empty(len(begun))
        strokes.points[:], strokes.radius[:] = points[b, begun], radius[b, begun]
        strokes.color[:], strokes.alpha[:] = color[b, begun], alpha[b, begun]
        shown = np.minimum(reveal[b, begun], np.float32(1)).astype(np.float32)
        yield strokes.scale(side), Brushes.gather(brush[b, begun], atlas), shown, begun
