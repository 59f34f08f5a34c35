"""Everything that waits for a GPU, in one run: CUDA against CPU, values and seconds.

    PAINTPROC_WEIGHTS=... [PAINTPROC_PAINTINGS=...] python benchmarks/gpu_checks.py

Ends with exit code 5 where there is no CUDA device, and 1 where CUDA and CPU do not agree. What ran on
which GPU is in docs/gpu.md.
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import pictures, save

from paintproc.scene import depth, segment
from paintproc.weights.manifest import named
from paintproc.weights.store import find_weights, state, weights_folder

PICTURES = 6
LEAST_OVERLAP, LARGEST_DIFFERENCE = 0.95, 0.02
"""What counts as agreement: overlap of masks, and difference of depth, which runs from 0 to 1."""


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


def main() -> int:
    if not torch.cuda.is_available():
        print("There is no CUDA device here; nothing was run.", file=sys.stderr)
        return 5
    targets = list(pictures("famous").values())[:PICTURES]
    results: dict[str, Any] = {"gpu": torch.cuda.get_device_name(0), "torch": torch.__version__}
    folder = weights_folder()
    for name in segment.NETWORKS:
        if name != "sam2-tiny" and state(named(name), folder) == "here":
            results[f"segments by {name}"] = segmentation(targets, name)
    results["depth"] = depths(targets)
    save("gpu", results)
    agree = all(row["overlap"] >= LEAST_OVERLAP for name, row in results.items() if name.startswith("segments"))
    return 0 if agree and results["depth"]["largest_difference"] <= LARGEST_DIFFERENCE else 1


if __name__ == "__main__":
    sys.exit(main())
