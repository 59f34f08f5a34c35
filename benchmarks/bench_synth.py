"""Sequences an hour of `paintproc synth`, by method and by workers, and memory over 500 items.

PAINTPROC_PAINTINGS=... python benchmarks/bench_synth.py

The rate is the marginal one: what further items cost once the command runs. PNG writing is part of it.
"""

import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from common import COMMAND, family, pictures, resident, save, save_picture

FEW, MANY = 4, 16
RUNS = {
    "strokes --method fit --strokes 1000": 2000,
    "strokes --method human --strokes 1000": 1000,
    "strokes --method learn-to-paint --strokes 500": 500,
    "strokes --method stylized --strokes 500": 500,
    "layers --order near-to-far --render paste": None,
    "layers --order far-to-near --render strokes --strokes 1000": None,
}
"""Commands, and how many sequences an hour are asked of them."""


def write_pictures(folder: Path, count: int, side: int | None = None) -> Path:
    """`count` different pictures: paintings, and the same mirrored."""
    folder.mkdir()
    found = list(pictures("famous").values())
    views = [lambda p: p, lambda p: p[:, ::-1], lambda p: p[::-1], lambda p: p[::-1, ::-1]]
    for k in range(count):
        pixels = views[k // len(found) % 4](found[k % len(found)])
        step = 1 if side is None else max(1, max(pixels.shape[:2]) // side)
        save_picture(folder / f"{k:04d}.png", pixels[::step, ::step].copy())
    return folder


def timed(words: str, inputs: list[Path], out: Path, workers: int) -> float:
    begun = time.perf_counter()
    subprocess.run(
        [COMMAND, "synth", *words.split(), *inputs, "-o", out, "--size", "512", "--num-frames", "8", "-q",
         "--workers", str(workers)],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return time.perf_counter() - begun


def rate(words: str, paths: list[Path], scratch: Path, workers: int) -> dict[str, float]:
    """Sequences an hour, and seconds of a sequence on one worker; the few are done twice, the first time to warm up."""
    times = [
        timed(words, paths[:count], scratch / f"{len(list(scratch.iterdir()))}", workers) for count in (FEW, FEW, MANY)
    ]
    each = (times[2] - times[1]) / (MANY - FEW)
    return {"sequences_an_hour": round(3600 / each), "seconds_a_sequence": round(each, 3)}


def memory(scratch: Path) -> dict[str, float]:
    """Proportional memory of the whole process tree while 500 items are painted, in MiB, by tenths of the time."""
    inputs = write_pictures(scratch / "small", 500, 128)
    command = [
        COMMAND,
        "synth",
        "strokes",
        "--method",
        "fit",
        "--strokes",
        "100",
        "--size",
        "128",
        "-q",
        "--workers",
        "2",
    ]
    process = subprocess.Popen([*command, inputs, "-o", scratch / "many"], stdout=subprocess.DEVNULL)
    seen: list[float] = []

    def watch() -> None:
        while process.poll() is None:
            seen.append(sum(map(resident, family(process.pid))))
            time.sleep(0.2)

    watcher = threading.Thread(target=watch)
    watcher.start()
    if process.wait():
        raise RuntimeError("the run over 500 items failed")
    watcher.join()
    tenths = [statistics.median(seen[len(seen) * k // 10 : len(seen) * (k + 1) // 10]) for k in range(1, 10)]
    return {
        "items": 500,
        "mib_by_tenth": [round(value) for value in tenths],
        "growth": round(tenths[-1] / tenths[0], 3),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder, "runs")
        scratch.mkdir()
        paths = sorted(write_pictures(Path(folder, "pictures"), MANY).iterdir())
        methods = {}
        for words, asked in RUNS.items():
            methods[words] = rate(words, paths, scratch, 2) | ({"asked": asked} if asked else {})
            print(words, methods[words], flush=True)
        by_workers = {
            workers: rate("strokes --method fit --strokes 1000", paths, scratch, workers) for workers in (1, 2, 4)
        }
        frames = list(scratch.glob("*/*/*/*.png"))
        size = {"bytes_a_frame": round(statistics.mean(path.stat().st_size for path in frames))}
        save("synth", {"methods": methods, "fit_by_workers": by_workers, "memory": memory(Path(folder)), **size})


if __name__ == "__main__":
    main()
