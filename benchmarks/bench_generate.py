"""Wall seconds and memory of `paintproc generate` as a whole process tree.

PAINTPROC_PAINTINGS=... python benchmarks/bench_generate.py
"""

import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import COMMAND, peak_memory, pictures, run_timed, save, save_picture

CASES = {
    "defaults": (1, 5, ()),
    "--plan coarse-to-fine": (1, 5, ("--plan", "coarse-to-fine")),
    "--size 1024 --strokes 5000": (2, 3, ("--size", 1024, "--strokes", 5000)),
    "--size 2048 --strokes 8000": (4, 3, ("--size", 2048, "--strokes", 8000)),
    "--size 4096 --strokes 20000": (8, 1, ("--size", 4096, "--strokes", 20000)),
}
"""How many times larger the picture is made, how often the command runs, and its options."""
COLD = "defaults, first compilation"


def measure(command: list[object], repeats: int, folder: Path, cold: bool = False) -> dict[str, Any]:
    """Median wall seconds of `repeats` runs, and peak memory of one more; if `cold`, each compiles the kernels."""

    def run(work: Callable[..., float], number: int) -> float:
        kernels = {"NUMBA_CACHE_DIR": str(folder / f"kernels-{number}")} if cold else {}
        with tempfile.TemporaryDirectory(dir=folder) as output:
            return work([*command, "-o", Path(output, "out")], env={**os.environ, **kernels})

    walls = [run(run_timed, number) for number in range(repeats)]
    return {
        "seconds_median": round(statistics.median(walls), 2),
        "seconds": [round(wall, 2) for wall in walls],
        "peak_mib": round(run(peak_memory, repeats)),
    }


def main() -> None:
    targets = pictures("bench8")
    target = max(targets.values(), key=lambda pixels: pixels.size)
    results: dict[str, Any] = {"picture": list(target.shape[:2])}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for times in (1, 2, 4, 8):
            save_picture(folder / f"{times}.png", target.repeat(times, 0).repeat(times, 1))
        command = [COMMAND, "generate", "-i", folder / "1.png"]
        results[COLD] = measure(command, 3, folder, cold=True)
        run_timed([*command, "-o", folder / "warm"])
        for name, (times, repeats, options) in CASES.items():
            results[name] = measure([COMMAND, "generate", "-i", folder / f"{times}.png", *options], repeats, folder)
    save("generate", results)


if __name__ == "__main__":
    main()
