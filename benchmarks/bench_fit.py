"""Quality and seconds of `fit` by number of strokes, and a prototype's beside it.

    PAINTPROC_PAINTINGS=... PAINTPROC_YARDSTICK=... python benchmarks/bench_fit.py [--famous]

PAINTPROC_YARDSTICK names a folder with the prototype's `fit.py` and `eng.py`; it runs in turn
with ours, picture by picture, in this process.
"""

import contextlib
import importlib.util
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import as_float, pictures, save, save_picture

from paintproc.metrics.frames import psnr, ssim
from paintproc.process.clock import to_uint8
from paintproc.strokes.fit import fit
from paintproc.strokes.rasterize import rasterize

COUNTS = (250, 500, 1000, 2000, 5000)
YARDSTICK_STEPS = (60, 60, 60, 80)


def ours(target: np.ndarray, count: int) -> tuple[float, float, float]:
    begun = time.perf_counter()
    strokes = fit(as_float(target), count)
    elapsed = time.perf_counter() - begun
    picture = to_uint8(rasterize(strokes, size=target.shape[:2]))
    return psnr(picture, target), ssim(picture, target), elapsed


def load_yardstick():
    folder = os.environ.get("PAINTPROC_YARDSTICK")
    if not folder:
        print("PAINTPROC_YARDSTICK is not set; only ours is measured", file=sys.stderr)
        return None
    sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location("yardstick_fit", Path(folder, "fit.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(target: np.ndarray, count: int) -> tuple[float, float, float]:
        with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
            save_picture(Path("in.png"), target)
            _, elapsed = module.run("in.png", N=count, iters=YARDSTICK_STEPS, verbose=False)
            from PIL import Image

            picture = np.array(Image.open("out.png"))
        return psnr(picture, target), ssim(picture, target), elapsed

    return run


def summary(rows: list[tuple[float, float, float]]) -> dict[str, float]:
    values = np.array(rows)
    return {
        "psnr": round(values[:, 0].mean(), 3),
        "ssim": round(values[:, 1].mean(), 4),
        "seconds": round(values[:, 2].mean(), 3),
    }


def main() -> None:
    targets = pictures("bench8")
    yardstick = load_yardstick()
    first = next(iter(targets.values()))
    ours(first, 50)
    if yardstick:
        yardstick(first, 50)
    results = {"pictures": len(targets), "by_strokes": {}}
    for count in COUNTS:
        own, other = [], []
        for target in targets.values():
            own.append(ours(target, count))
            if yardstick:
                other.append(yardstick(target, count))
        row = {"ours": summary(own)}
        if yardstick:
            row["yardstick"] = summary(other)
            row["seconds_ratio"] = round(row["ours"]["seconds"] / row["yardstick"]["seconds"], 3)
            row["psnr_gain"] = round(row["ours"]["psnr"] - row["yardstick"]["psnr"], 3)
        results["by_strokes"][count] = row
    if "--famous" in sys.argv:
        famous = pictures("famous")
        rows = [ours(target, 1000) for target in famous.values()]
        values = np.array(rows)[:, 0]
        spread = {"psnr_min": round(values.min(), 2), "psnr_max": round(values.max(), 2)}
        results["famous_1000_strokes"] = {"pictures": len(rows), **summary(rows), **spread}
    save("fit", results)


if __name__ == "__main__":
    main()
