"""Wall seconds and memory of `paintproc generate` as a whole process tree.

PAINTPROC_PAINTINGS=... python benchmarks/bench_generate.py
"""

import os
import statistics
import tempfile
from pathlib import Path

from common import COMMAND, pictures, run_measured, save, save_picture

CASES = {
    "defaults": (1, 5, ()),
    "--plan coarse-to-fine": (1, 5, ("--plan", "coarse-to-fine")),
    "--size 1024 --strokes 5000": (2, 3, ("--size", 1024, "--strokes", 5000)),
    "--size 2048 --strokes 8000": (4, 1, ("--size", 2048, "--strokes", 8000)),
    "--size 4096 --strokes 20000": (8, 1, ("--size", 4096, "--strokes", 20000)),
}
"""How many times larger the picture is made, how often the command runs, and its options."""


def main() -> None:
    targets = pictures("bench8")
    target = max(targets.values(), key=lambda pixels: pixels.size)
    results = {"picture": list(target.shape[:2])}
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder, "1.png")
        for times in (1, 2, 4, 8):
            save_picture(Path(folder, f"{times}.png"), target.repeat(times, 0).repeat(times, 1))
        cold = {**os.environ, "NUMBA_CACHE_DIR": str(Path(folder, "kernels"))}
        wall, peak = run_measured([COMMAND, "generate", "-i", small, "-o", Path(folder, "cold")], env=cold)
        results["defaults, first compilation"] = {"seconds": round(wall, 2), "peak_mib": round(peak)}
        for number, (name, (times, repeats, options)) in enumerate(CASES.items()):
            runs = []
            for k in range(repeats):
                output = Path(folder, f"{number}-{k}")
                runs.append(
                    run_measured([COMMAND, "generate", "-i", Path(folder, f"{times}.png"), "-o", output, *options])
                )
            walls, peaks = zip(*runs, strict=True)
            results[name] = {
                "seconds_median": round(statistics.median(walls), 2),
                "seconds": [round(wall, 2) for wall in walls],
                "peak_mib": round(max(peaks)),
            }
    save("generate", results)


if __name__ == "__main__":
    main()
