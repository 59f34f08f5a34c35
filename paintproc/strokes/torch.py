"""`rasterize` for PyTorch: the same op and the same kernels, for autograd on CPU tensors."""

from dataclasses import replace
from typing import Any

import numpy as np

from paintproc.errors import DeviceError, MissingError

try:
    import torch
except ImportError as error:
    raise MissingError("PyTorch is not installed.", "Run: pip install 'paintproc[models]'") from error

from paintproc.strokes.rasterize import SOFTNESS, rasterize_gradients
from paintproc.strokes.rasterize import rasterize as rasterize_arrays
from paintproc.strokes.values import Strokes


def rasterize(
    strokes: Strokes,
    canvas: torch.Tensor,
    *,
    points: torch.Tensor | None = None,
    radius: torch.Tensor | None = None,
    color: torch.Tensor | None = None,
    alpha: torch.Tensor | None = None,
    softness: float = SOFTNESS,
) -> torch.Tensor:
    """The picture, float32 [height, width, 3], of `strokes` over `canvas`.

    `points` [N, 3, 2], `radius` [N, 2], `color` [N, 2, 3], `alpha` [N, 2] replace the strokes'
    own arrays and receive gradients; order, brushes and ground are the strokes'. The canvas
    receives none. DeviceError for tensors that are not on the CPU.
    """
    given = (points, radius, color, alpha)
    for tensor in (canvas, *given):
        if tensor is not None and tensor.device.type != "cpu":
            raise DeviceError(f"rasterize takes CPU tensors, got one on {tensor.device}.", "Move it with .cpu().")
    own = (strokes.points, strokes.radius, strokes.color, strokes.alpha)
    tensors = [torch.from_numpy(o) if t is None else t for o, t in zip(own, given, strict=True)]
    return _Rasterize.apply(strokes, canvas, softness, *tensors)


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, strokes: Strokes, canvas: torch.Tensor, softness: float, *tensors: torch.Tensor
    ) -> torch.Tensor:
        names = ("points", "radius", "color", "alpha")
        arrays: dict[str, Any] = {n: _array(t) for n, t in zip(names, tensors, strict=True)}
        ctx.strokes = replace(strokes, **arrays)
        ctx.canvas, ctx.softness = _array(canvas), softness
        return torch.from_numpy(rasterize_arrays(ctx.strokes, ctx.canvas, softness=softness))

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        _, gradients = rasterize_gradients(ctx.strokes, ctx.canvas, _array(upstream[0]), softness=ctx.softness)
        found = (gradients.points, gradients.radius, gradients.color, gradients.alpha)
        return (None, None, None, *map(torch.from_numpy, found))


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().to(torch.float32).contiguous().numpy()
