"""The dataset builder over a million inputs on which no work is done: seconds and memory of a run, and of going on.

python benchmarks/bench_builder.py [COUNT]

The first run is stopped half-way, the second goes on and finishes, the third finds all done. With local processes a
tenth of the inputs is run, since handing an item to a process and back is what takes the time.
"""

import json
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import save

from paintproc.dataset.build import build_dataset
from paintproc.dataset.growing import Build
from paintproc.jobs import Engine


class Stop(Exception):
    pass


def nothing(task: Any) -> dict[str, Any]:
    return {"outcome": "skipped", "reason": "nothing to do"}


def task_of(place: int, folder: Path) -> int:
    return place


def run(out: Path, count: int, workers: int, stop_after: int | None) -> dict[str, float]:
    names = [f"pictures/{k:07d}.png" for k in range(count)]
    done = 0

    def tell(line: Any, new: bool) -> None:
        nonlocal done
        done += new
        if stop_after is not None and done >= stop_after:
            raise Stop

    begun = time.perf_counter()
    try:
        engine = Engine(workers=workers) if workers else None
        build = Build(out, {"kind": "empty", "settings": {}}, names, "0", task_of, nothing, engine=engine)
        build_dataset(build, tell=tell)
    except Stop:
        pass
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"inputs": done, "seconds": round(time.perf_counter() - begun, 1), "peak_mib": round(memory)}


def in_a_process(out: Path, count: int, workers: int, stop_after: int | None = None) -> dict[str, float]:
    """Memory is that of a process of its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(run, (out, count, workers, stop_after))


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        found: dict[str, Any] = {"of_a_tenth": in_a_process(Path(folder, "few"), count // 10, 0)}
        found["stopped_half_way"] = in_a_process(out, count, 0, count // 2)
        found["gone_on"] = in_a_process(out, count, 0)
        found["again"] = in_a_process(out, count, 0)
        counts = json.loads((out / "dataset.json").read_text())["counts"]
        assert counts["skipped"] == counts["inputs"] == count
        shutil.rmtree(out)
        found["two_processes_a_tenth"] = run(out, count // 10, 2, None)
        save("builder", {"count": count, **found})


if __name__ == "__main__":
    main()
