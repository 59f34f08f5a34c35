"""Wall seconds and memory of `paintproc generate` as a whole process tree.

PAINTPROC_PAINTINGS=... python benchmarks/bench_generate.py
"""

import os
import statistics
import tempfile
from pathlib import Path

from common import COMMAND, pictures, run_measured, save, save_picture

CASES = {
    "defaults": (),
    "--size 1024 --strokes 5000": ("--size", 1024, "--strokes", 5000),
}


def main() -> None:
    targets = pictures("bench8")
    target = max(targets.values(), key=lambda pixels: pixels.size)
    results = {"picture": list(target.shape[:2])}
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder, "small.png"), Path(folder, "large.png")
        save_picture(small, target)
        save_picture(large, target.repeat(2, 0).repeat(2, 1))
        cold = {**os.environ, "NUMBA_CACHE_DIR": str(Path(folder, "kernels"))}
        wall, peak = run_measured([COMMAND, "generate", "-i", small, "-o", Path(folder, "cold")], env=cold)
        results["defaults, first compilation"] = {"seconds": round(wall, 2), "peak_mib": round(peak)}
        for name, options in CASES.items():
            runs = []
            for k in range(5):
                picture = large if options else small
                output = Path(folder, f"{len(options)}-{k}")
                runs.append(run_measured([COMMAND, "generate", "-i", picture, "-o", output, *options]))
            walls, peaks = zip(*runs, strict=True)
            results[name] = {
                "seconds_median_of_5": round(statistics.median(walls), 2),
                "seconds": [round(wall, 2) for wall in walls],
                "peak_mib": round(max(peaks)),
            }
    save("generate", results)


if __name__ == "__main__":
    main()
