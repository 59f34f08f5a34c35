"""`rasterize` for PyTorch: one differentiable op on every device, seen by autograd, torch.compile and tracing.

float32 runs on the CPU kernels, or on CUDA on the Triton kernels; float64 runs, slowly, on the readable twin, on
any device.
"""

from typing import Any

import numpy as np

from paintproc.errors import DeviceError, MissingError

try:
    import torch
    from torch import Tensor
except ImportError as error:
    raise MissingError("PyTorch is not installed.", "Run: pip install 'paintproc[models]'") from error

from paintproc.strokes.ops import reference
from paintproc.strokes.ops.kernels import SOFTNESS
from paintproc.strokes.values import Strokes


def rasterize(
    points: Tensor,
    radius: Tensor,
    color: Tensor,
    alpha: Tensor,
    canvas: Tensor,
    *,
    brush: Tensor | None = None,
    atlas: Tensor | None = None,
    reveal: Tensor | None = None,
    softness: float = SOFTNESS,
) -> Tensor:
    """Each canvas with its strokes laid on it, in order: pictures [B, H, W, 3].

    points [B, N, 3, 2] and radius [B, N, 2] in canvas units (1.0 is the longer side of the canvas); color
    [B, N, 2, 3], alpha [B, N, 2]; canvas [B, H, W, 3]. brush [B, N] counts into `atlas`, brush maps [K, h, w];
    without them every brush is round. reveal [B, N] in [0, 1] is the part of each curve drawn so far: without it
    1, and a stroke at 0 is not drawn. softness is half the width of the edge, in pixels. All without the B, for
    one picture, gives one picture.

    Gradients for points, radius, color, alpha, canvas and atlas. Shapes are checked, ranges are not. ValueError
    where shapes do not fit, TypeError for floats that are not all float32 or all float64, DeviceError for
    tensors on several devices or on one that is neither a CPU nor CUDA.
    """
    count = points.shape[:-2]
    if brush is None:
        brush = points.new_zeros(count, dtype=torch.int32)
    if atlas is None:
        atlas = points.new_ones(1, 1, 1)
    if reveal is None:
        reveal = points.new_ones(count)
    floats = {
        "points": points, "radius": radius, "color": color, "alpha": alpha, "canvas": canvas, "atlas": atlas,
        "reveal": reveal,
    }  # fmt: skip
    _check(floats, brush)
    one = points.ndim == 3
    given = [tensor if name == "atlas" or not one else tensor[None] for name, tensor in floats.items()]
    points, radius, color, alpha, canvas, atlas, reveal = (tensor.contiguous() for tensor in given)
    brush = (brush[None] if one else brush).to(torch.int32).contiguous()
    picture = _rasterize(points, radius, color, alpha, brush, canvas, atlas, reveal.detach(), float(softness))
    return picture[0] if one else picture


def tensors_of(
    strokes: Strokes, *, device: "torch.device | str" = "cpu", dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """What `rasterize` takes of `strokes`, for `rasterize(**tensors_of(strokes), canvas=canvas)`.

    points [N, 3, 2], radius [N, 2], color [N, 2, 3], alpha [N, 2], brush [N] and the atlas [K, h, w]. Brushes of
    different sizes are resampled, bilinearly, to the largest.
    """
    rows = max(brush.shape[0] for brush in strokes.brushes)
    columns = max(brush.shape[1] for brush in strokes.brushes)
    t, across = np.meshgrid(np.linspace(0, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    atlas = np.stack([b if b.shape == t.shape else reference.sample_brush(b, t, across) for b in strokes.brushes])
    arrays = {name: getattr(strokes, name) for name in ("points", "radius", "color", "alpha")} | {"atlas": atlas}
    tensors = {name: torch.tensor(array, dtype=dtype, device=device) for name, array in arrays.items()}
    return tensors | {"brush": torch.tensor(strokes.brush, device=device)}


def _check(floats: dict[str, Tensor], brush: Tensor) -> None:
    """Shapes, types and devices of one call."""
    points, canvas, atlas = floats["points"], floats["canvas"], floats["atlas"]
    count = tuple(points.shape[:-2])
    if points.ndim not in (3, 4) or canvas.ndim != points.ndim or min(canvas.shape) < 1:
        raise ValueError(
            f"points are [N, 3, 2] with a canvas [H, W, 3], or [B, N, 3, 2] with [B, H, W, 3]; "
            f"got {tuple(points.shape)} and {tuple(canvas.shape)}"
        )
    if atlas.ndim != 3 or min(atlas.shape) < 1:
        raise ValueError(f"an atlas is brush maps [K, h, w], got {tuple(atlas.shape)}")
    expected = {
        "points": (*count, 3, 2), "radius": (*count, 2), "color": (*count, 2, 3), "alpha": (*count, 2),
        "reveal": count, "canvas": (*count[:-1], *canvas.shape[-3:-1], 3),
    }  # fmt: skip
    for name, shape in expected.items():
        if tuple(floats[name].shape) != shape:
            raise ValueError(f"{name} has shape {tuple(floats[name].shape)}, expected {shape}")
    if tuple(brush.shape) != count:
        raise ValueError(f"brush has shape {tuple(brush.shape)}, expected {count}")
    if brush.is_floating_point() or brush.dtype == torch.bool:
        raise TypeError(f"brush counts into the atlas and is of an integer type, got {brush.dtype}")
    types = sorted({str(tensor.dtype) for tensor in floats.values()})
    if types not in (["torch.float32"], ["torch.float64"]):
        raise TypeError(f"rasterize takes tensors that are all float32 or all float64, got {', '.join(types)}")
    devices = sorted({str(tensor.device) for tensor in (*floats.values(), brush)})
    if len(devices) > 1 or (points.device.type not in ("cpu", "cuda") and points.dtype != torch.float64):
        raise DeviceError(
            f"rasterize takes tensors that are all on the CPU or on one CUDA device, got {', '.join(devices)}.",
            "Move them with .to(device).",
        )


@torch.library.custom_op("paintproc::rasterize", mutates_args=())
def _rasterize(
    points: Tensor, radius: Tensor, color: Tensor, alpha: Tensor, brush: Tensor, canvas: Tensor, atlas: Tensor,
    reveal: Tensor, softness: float,
) -> Tensor:  # fmt: skip
    tensors = (points, radius, color, alpha, brush, canvas, atlas, reveal)
    if points.dtype == torch.float64:
        return reference.rasterize(*tensors, softness)
    if points.device.type == "cpu":
        from paintproc.strokes.ops import cpu

        arrays: list[Any] = [*map(_array, tensors), softness]
        return torch.from_numpy(cpu.forward(*arrays))
    from paintproc.strokes.ops import cuda

    return cuda.forward(*tensors, softness)


@torch.library.custom_op("paintproc::rasterize_backward", mutates_args=())
def _rasterize_backward(
    upstream: Tensor, points: Tensor, radius: Tensor, color: Tensor, alpha: Tensor, brush: Tensor, canvas: Tensor,
    atlas: Tensor, reveal: Tensor, picture: Tensor, softness: float, atlas_too: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    tensors = (points, radius, color, alpha, brush, canvas, atlas, reveal)
    if points.dtype == torch.float64:
        return _reference_backward(upstream, *tensors, softness)
    if points.device.type == "cpu":
        from paintproc.strokes.ops import cpu

        arrays: list[Any] = [*map(_array, (upstream, *tensors)), softness]
        by_points, by_radius, *others = map(torch.from_numpy, cpu.backward(*arrays, atlas_too=atlas_too))
        by_color, by_alpha, by_canvas, by_atlas = others
        return by_points, by_radius, by_color, by_alpha, by_canvas, by_atlas
    from paintproc.strokes.ops import cuda

    return cuda.backward(upstream.contiguous(), *tensors, softness, picture=picture, atlas_too=atlas_too)


def _reference_backward(
    upstream: Tensor, points: Tensor, radius: Tensor, color: Tensor, alpha: Tensor, brush: Tensor, canvas: Tensor,
    atlas: Tensor, reveal: Tensor, softness: float,
) -> Any:  # fmt: skip
    """Autograd's gradients of the readable twin; `vjp` since autograd itself rests while an op runs."""

    def draw(points: Tensor, radius: Tensor, color: Tensor, alpha: Tensor, canvas: Tensor, atlas: Tensor) -> Tensor:
        return reference.rasterize(points, radius, color, alpha, brush, canvas, atlas, reveal, softness)

    pull: Any = torch.func.vjp(draw, points, radius, color, alpha, canvas, atlas)[1]
    return tuple(found.clone(memory_format=torch.contiguous_format) for found in pull(upstream))


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


@_rasterize.register_fake
def _(points, radius, color, alpha, brush, canvas, atlas, reveal, softness):  # type: ignore[no-untyped-def]
    return torch.empty_like(canvas, memory_format=torch.contiguous_format)


@_rasterize_backward.register_fake
def _(  # type: ignore[no-untyped-def]
    upstream, points, radius, color, alpha, brush, canvas, atlas, reveal, picture, softness, atlas_too
):
    tensors = (points, radius, color, alpha, canvas, atlas)
    return tuple(torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in tensors)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.softness = inputs
    ctx.save_for_backward(*tensors, output)


def _pull(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    points, radius, color, alpha, canvas, atlas = _rasterize_backward(
        upstream, *ctx.saved_tensors, ctx.softness, ctx.needs_input_grad[6]
    )
    return points, radius, color, alpha, None, canvas, atlas if ctx.needs_input_grad[6] else None, None, None


_rasterize.register_autograd(_pull, setup_context=_keep)
