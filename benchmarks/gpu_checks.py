"""Everything that waits for a GPU, in one run: CUDA against CPU, values and seconds.

    PAINTPROC_WEIGHTS=... [PAINTPROC_PAINTINGS=...] python benchmarks/gpu_checks.py

Ends with exit code 5 where there is no CUDA device, and 1 where CUDA and CPU do not agree. What ran on
which GPU is in docs/gpu.md.
"""

import copy
import statistics
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from common import as_float, pictures, save

from paintproc.config.plan import read_plan
from paintproc.metrics.frames import psnr
from paintproc.process.clock import to_uint8
from paintproc.process.paint import paint_batch
from paintproc.scene import depth, segment
from paintproc.scene.find import find_scene
from paintproc.strokes.fit import fit_batch
from paintproc.strokes.rasterize import rasterize as draw_strokes
from paintproc.strokes.torch import rasterize
from paintproc.weights.manifest import named
from paintproc.weights.store import find_weights, state, weights_folder

PICTURES = 6
LEAST_OVERLAP, LARGEST_DIFFERENCE = 0.95, 0.02
"""What counts as agreement: overlap of masks, and difference of depth, which runs from 0 to 1."""
LARGEST_ERROR, MILLISECONDS = 1e-3, 1.0
"""Of the stroke op: the mean error of a gradient against its mean size, and the time asked for each picture."""
LEAVES = ("points", "radius", "color", "alpha", "canvas", "atlas")


def seconds(work: Callable[[], Any]) -> float:
    """Median of five runs after one that does not count."""
    times = []
    for _ in range(6):
        begun = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return round(statistics.median(times[1:]), 4)


def segmentation(targets: list[np.ndarray], name: str) -> dict[str, float]:
    """How alike the masks are: the mean of each CPU mask's best overlap among the CUDA masks."""
    files, seen, times = find_weights(name), {}, {}
    for device in ("cpu", "cuda"):
        segment.load_segmenter(name, tuple(files), device)
        begun = time.perf_counter()
        seen[device] = [segment.segment(target, name, files, device)[0] for target in targets]
        times[f"{device}_s"] = round((time.perf_counter() - begun) / len(targets), 3)
    overlaps = []
    for first, second in zip(seen["cpu"], seen["cuda"], strict=True):
        for mask in first:
            unions = [(mask & other).sum() / max((mask | other).sum(), 1) for other in second]
            overlaps.append(max(unions, default=0.0))
    return {"overlap": round(float(np.mean(overlaps)), 4), **times}


def depths(targets: list[np.ndarray]) -> dict[str, float]:
    """Depth Anything V2, small: real weights where they are at hand, else random ones (the arithmetic is the same)."""
    name = "depth-anything-v2-small"
    torch.manual_seed(0)
    models = {"cpu": depth.depth_anything(name).eval()}
    if state(named(name), weights_folder()) == "here":
        from safetensors.torch import load_file

        models["cpu"].load_state_dict(load_file(find_weights(name)[0]))
    models["cuda"] = depth.depth_anything(name).eval()
    models["cuda"].load_state_dict(models["cpu"].state_dict())
    models["cuda"].to("cuda")
    depth._load_depth_anything = lambda name, file, device: models[device]
    apart = [
        float(np.abs(depth.find_depth(t, name, [None], "cpu") - depth.find_depth(t, name, [None], "cuda")).max())
        for t in targets
    ]
    result = {"largest_difference": max(apart)}
    for device in models:
        result[f"{device}_s"] = seconds(lambda device=device: depth.find_depth(targets[0], name, [None], device))
    return result


def strokes_on(device: str, dtype: torch.dtype, batch: int, count: int, side: int, cells: int = 1) -> dict[str, Any]:
    """Arguments of the stroke op; the strokes become shorter and thinner from the first to the last, as in `fit`."""
    random = np.random.default_rng(7)
    size = np.geomspace(0.08, 0.012, count)[:, None]
    points = random.uniform(0, 1, (batch, count, 1, 2)) + random.normal(0, 1, (batch, count, 3, 2)) * size[..., None]
    arrays = {
        "points": points, "radius": 0.45 * size * random.uniform(0.8, 1.2, (batch, count, 2)),
        "color": random.uniform(0, 1, (batch, count, 2, 3)), "alpha": random.uniform(0.6, 0.98, (batch, count, 2)),
        "canvas": random.uniform(0, 1, (batch, side, side, 3)),
        "atlas": np.ones((1, 1, 1)) if cells == 1 else random.uniform(0.3, 1, (2, cells, cells)),
    }  # fmt: skip
    tensors = {name: torch.tensor(array, dtype=dtype, device=device) for name, array in arrays.items()}
    tensors = {name: tensor.requires_grad_() for name, tensor in tensors.items()}
    return tensors | {"brush": torch.tensor(random.integers(0, len(arrays["atlas"]), (batch, count)), device=device)}


def pull(tensors: dict[str, Any]) -> list[torch.Tensor]:
    """The picture, and gradients of a loss of it."""
    picture = rasterize(**tensors)
    wave = torch.linspace(0, 50, picture.numel(), dtype=torch.float64).sin().to(picture).reshape(picture.shape)
    return [picture.detach(), *torch.autograd.grad(picture, [tensors[name] for name in LEAVES], wave)]


def stroke_values() -> dict[str, float]:
    """Picture and gradients on CUDA against the readable twin in float64: mean error against mean size."""
    errors = {}
    for cells in (1, 9):
        fast, slow = (
            pull(strokes_on(device, dtype, 2, 60, 100, cells))
            for device, dtype in (("cuda", torch.float32), ("cpu", torch.float64))
        )
        for name, actual, wanted in zip(("picture", *LEAVES), fast, slow, strict=True):
            apart = (actual.cpu().double() - wanted).abs().mean() / wanted.abs().mean()
            errors[f"{name}, brush of {cells} x {cells}"] = float(f"{apart.item():.2g}")
    return errors


def stroke_bytes() -> bool:
    """Whether three runs give the same bytes, with a brush that learns."""
    tensors = strokes_on("cuda", torch.float32, 2, 1000, 512, 16)
    first, *others = ([tensor.cpu().numpy().tobytes() for tensor in pull(tensors)] for _ in range(3))
    return all(run == first for run in others)


def stroke_milliseconds() -> dict[str, float]:
    """Forward and backward of 1,000 strokes at 512 pixels, for each picture."""
    results = {}
    for batch in (1, 64):
        tensors = strokes_on("cuda", torch.float32, batch, 1000, 512)
        upstream = torch.ones_like(tensors["canvas"])

        def both(tensors: dict[str, Any] = tensors, upstream: torch.Tensor = upstream) -> None:
            torch.autograd.grad(rasterize(**tensors), [tensors[name] for name in LEAVES[:4]], upstream)

        def forward(tensors: dict[str, Any] = tensors) -> None:
            with torch.no_grad():
                rasterize(**tensors)

        results[f"forward, {batch} at once"] = round(1000 * seconds(forward) / batch, 4)
        results[f"forward and backward, {batch} at once"] = round(1000 * seconds(both) / batch, 4)
    return results


def stroke_descent(targets: list[np.ndarray]) -> dict[str, float]:
    """20 optimizer steps of 500 strokes for each picture: `descend` on CUDA against the op on the CPU with Adam."""
    from paintproc.strokes.ops import cuda

    side, steps = 256, 20
    tensors = strokes_on("cpu", torch.float32, len(targets), 500, side)
    with torch.no_grad():
        whole = cuda.pack(*(tensors[name] for name in LEAVES[:4]), tensors["canvas"]).numpy()
    rate = np.full(16, 0.3, np.float32)
    rate[8:] = 0.02
    low, high = np.full(16, -side, np.float32), np.full(16, 2 * side, np.float32)
    low[6:8], low[8:], high[8:] = 0.6, 0, 1
    problems = []
    for rows, target in zip(whole, targets, strict=True):
        state = {name: np.zeros_like(rows) for name in ("mean", "square")} | {"age": np.zeros(len(rows), np.int32)}
        bounds = {name: np.tile(a, (len(rows), 1)) for name, a in (("rate", rate), ("low", low), ("high", high))}
        fixed = {"brush": np.zeros(len(rows), np.int32), "brushes": (np.ones((1, 1), np.float32),), "aims": None}
        wanted = cv2.resize(target, (side, side), interpolation=cv2.INTER_AREA) / np.float32(255)
        problems.append(
            types.SimpleNamespace(
                rows=rows.copy(),
                **state,
                **bounds,
                **fixed,
                canvas=np.ones_like(wanted),
                target=wanted,
                factors=[1.0] * steps,
                own=[0.0] * steps,
            )
        )

    def loss_of(rows: np.ndarray, problem: Any) -> tuple[float, np.ndarray]:
        leaf = torch.tensor(rows, requires_grad=True)
        points, radius, color = leaf[:, :6].reshape(-1, 3, 2), leaf[:, 6:8], leaf[:, 8:14].reshape(-1, 2, 3)
        canvas = torch.tensor(problem.canvas)
        picture = rasterize(points / side, radius / side, color, leaf[:, 14:], canvas)
        loss = ((picture - torch.tensor(problem.target)) ** 2).sum() / 2
        return loss.item(), torch.autograd.grad(loss, leaf)[0].numpy()

    begun = time.perf_counter()
    losses = []
    for problem in problems:
        rows, mean, square = problem.rows.copy(), np.zeros_like(problem.rows), np.zeros_like(problem.rows)
        for step in range(1, steps + 1):
            slope = loss_of(rows, problem)[1]
            mean, square = 0.8 * mean + 0.2 * slope, 0.9 * square + 0.1 * slope**2
            push = mean / (1 - 0.8**step) / (np.sqrt(square / (1 - 0.9**step)) + 1e-10)
            rows = np.clip(rows - rate * push, low, high).astype(np.float32)
        losses.append(loss_of(rows, problem)[0])
    cpu_seconds = time.perf_counter() - begun
    before = [loss_of(problem.rows, problem)[0] for problem in problems]
    cuda.descend(copy.deepcopy(problems))
    begun = time.perf_counter()
    cuda.descend(problems)
    cuda_seconds = time.perf_counter() - begun
    after = [loss_of(problem.rows, problem)[0] for problem in problems]
    return {
        "loss_before": round(float(sum(before)), 1),
        "loss_cpu": round(float(sum(losses)), 1),
        "loss_cuda": round(float(sum(after)), 1),
        "cpu_s": round(cpu_seconds, 3),
        "cuda_s": round(cuda_seconds, 3),
    }


def paintings(targets: list[np.ndarray]) -> dict[str, float]:
    """Mean PSNR and seconds of 500 strokes for each picture, by `fit` and by the human plan, on the CPU and on CUDA."""
    units, scenes, plan = [as_float(target) for target in targets], [find_scene(t) for t in targets], read_plan("human")
    found: dict[str, float] = {}
    for device in ("cpu", "cuda"):
        for name, work in (
            ("fit", lambda device=device: fit_batch(units, 500, device=device)),
            ("plan", lambda device=device: paint_batch(units, 500, plan, scenes, device=device)),
        ):
            work()
            begun = time.perf_counter()
            painted = work()
            found[f"{name} on {device}, s"] = round(time.perf_counter() - begun, 3)
            quality = [
                psnr(to_uint8(draw_strokes(strokes, size=target.shape[:2])), target)
                for strokes, target in zip(painted, targets, strict=True)
            ]
            found[f"{name} on {device}, dB"] = round(float(np.mean(quality)), 3)
    return found


def strokes_hold(results: dict[str, Any]) -> bool:
    """Whether the stroke op on CUDA keeps what it promises."""
    descent, painted = results["descent"], results["paintings"]
    return (
        max(results["stroke values"].values()) <= LARGEST_ERROR
        and results["the same bytes"]
        and results["milliseconds"]["forward and backward, 64 at once"] <= MILLISECONDS
        and abs(descent["loss_cuda"] - descent["loss_cpu"]) <= 0.01 * descent["loss_before"]
        and all(painted[f"{name} on cuda, dB"] > painted[f"{name} on cpu, dB"] - 0.1 for name in ("fit", "plan"))
    )


def main() -> int:
    if not torch.cuda.is_available():
        print("There is no CUDA device here; nothing was run.", file=sys.stderr)
        return 5
    targets = list(pictures("famous").values())[:PICTURES]
    results: dict[str, Any] = {"gpu": torch.cuda.get_device_name(0), "torch": torch.__version__}
    results |= {"stroke values": stroke_values(), "the same bytes": stroke_bytes()}
    results |= {
        "milliseconds": stroke_milliseconds(),
        "descent": stroke_descent(targets),
        "paintings": paintings(targets),
    }
    folder = weights_folder()
    for name in segment.NETWORKS:
        if name != "sam2-tiny" and state(named(name), folder) == "here":
            results[f"segments by {name}"] = segmentation(targets, name)
    results["depth"] = depths(targets)
    save("gpu", results)
    agree = all(row["overlap"] >= LEAST_OVERLAP for name, row in results.items() if name.startswith("segments"))
    agree = agree and strokes_hold(results)
    return 0 if agree and results["depth"]["largest_difference"] <= LARGEST_DIFFERENCE else 1


if __name__ == "__main__":
    sys.exit(main())
