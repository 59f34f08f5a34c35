"""Sequences an hour of `paintproc synth` by engine and by workers, on the same pictures.

PAINTPROC_PAINTINGS=... python benchmarks/bench_engines.py

The engines take turns, and each turn gives a ratio of its own: on a machine that also does other work the ratio says
more than the rates. The rate is the marginal one; what Ray needs to start is reported apart.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_synth import write_pictures
from common import COMMAND, run_timed, save

FEW, MANY, TURNS = 2, 10, 3
ENGINES = ("local", "ray")
WORDS = ("--method", "fit", "--strokes", "1000", "--size", "256", "--num-frames", "8", "-q")


def timed(engine: str, workers: int, inputs: list[Path], out: Path) -> float:
    return run_timed(
        [COMMAND, "synth", "strokes", *inputs, "-o", out, *WORDS, "--engine", engine, "--workers", workers]
    )


def same_bytes(one: Path, other: Path) -> bool:
    return subprocess.run(["diff", "-r", one, other], stdout=subprocess.DEVNULL).returncode == 0


def by_engine(workers: int, paths: list[Path], scratch: Path) -> dict[str, object]:
    """Median over the turns: sequences an hour of each engine, their ratio, and the seconds of a run of few."""
    rates: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    few: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    for turn in range(TURNS):
        for engine in ENGINES if turn % 2 else reversed(ENGINES):
            folder = scratch / f"{engine}-{workers}-{turn}"
            short = timed(engine, workers, paths[:FEW], folder / "few")
            long = timed(engine, workers, paths, folder / "many")
            few[engine].append(short)
            rates[engine].append(3600 * (MANY - FEW) / max(long - short, 1e-9))
        if not same_bytes(*(scratch / f"{engine}-{workers}-{turn}" / "many" for engine in ENGINES)):
            raise RuntimeError("the engines do not make the same bytes")
    ratios = [on_ray / here for here, on_ray in zip(rates["local"], rates["ray"], strict=True)]
    return {
        **{f"{engine}_an_hour": round(statistics.median(rates[engine])) for engine in ENGINES},
        "ratio_median": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        **{f"{engine}_seconds_of_{FEW}": round(statistics.median(few[engine]), 1) for engine in ENGINES},
    }


def main() -> None:
    print(f"{os.getloadavg()[0]:.1f} processes were running before", file=sys.stderr)
    begun, load = time.time(), []
    with tempfile.TemporaryDirectory() as folder:
        paths = sorted(write_pictures(Path(folder, "pictures"), MANY).iterdir())
        scratch = Path(folder, "runs")
        found = {}
        timed("local", 2, paths[:2], scratch / "warm")
        for workers in (1, 2):
            found[workers] = by_engine(workers, paths, scratch)
            load.append(os.getloadavg()[1])
            print(workers, found[workers], flush=True)
    minutes = round((time.time() - begun) / 60, 1)
    save(
        "engines", {"pictures": MANY, "turns": TURNS, "workers": found, "load": round(max(load), 1), "minutes": minutes}
    )


if __name__ == "__main__":
    main()
