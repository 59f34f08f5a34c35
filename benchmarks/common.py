"""What the benchmarks share: pictures, timing, the machine, and results that are committed."""

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import paintproc
from paintproc.process.generate import package_versions

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
COMMAND = Path(sys.executable).with_name("paintproc")


def machine() -> dict[str, Any]:
    """CPU model, cores and memory; nothing that names the machine itself."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"model name\s*: (.*)", info)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": model.group(1).strip() if model else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory),
        "python": platform.python_version(),
        "versions": {"paintproc": paintproc.__version__, **package_versions()},
    }


def pictures(name: str) -> dict[str, np.ndarray]:
    """uint8 pictures of a set below $PAINTPROC_PAINTINGS, or the examples where it is not there."""
    folder = Path(os.environ.get("PAINTPROC_PAINTINGS", ""), name)
    if not os.environ.get("PAINTPROC_PAINTINGS") or not folder.is_dir():
        print(f"PAINTPROC_PAINTINGS has no {name}; the examples are measured instead", file=sys.stderr)
        folder = ROOT / "examples"
    paths = sorted(p for p in folder.iterdir() if p.suffix in (".png", ".jpg"))
    return {path.stem: shrunk(path) for path in paths}


def shrunk(path: Path, side: int = 512) -> np.ndarray:
    return paintproc.load_picture(path, max_side=side).pixels


def seconds(work: Callable[[], Any], repeats: int = 5) -> dict[str, float]:
    """Median and quartiles of wall seconds, after one run that does not count."""
    work()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    low, middle, high = statistics.quantiles(times * 2 if len(times) < 2 else times, n=4, method="inclusive")
    return {"median": round(middle, 6), "quartiles": [round(low, 6), round(high, 6)]}


def run_timed(arguments: Sequence[object], **options: Any) -> float:
    """Wall seconds of a command."""
    begun = time.perf_counter()
    subprocess.run([str(a) for a in arguments], stdout=subprocess.DEVNULL, check=True, **options)
    return time.perf_counter() - begun


def peak_memory(arguments: Sequence[object], **options: Any) -> float:
    """Peak memory of a command's process tree in MiB. Looking at it slows the command, so it is not timed.

    A process that is just being started shares its parent's memory for a moment, and both report all of it. So of two
    looks in a row the lower one counts.
    """
    process = subprocess.Popen([str(a) for a in arguments], stdout=subprocess.DEVNULL, **options)
    peak = before = 0.0
    while process.poll() is None:
        now = sum(map(resident, family(process.pid)))
        peak, before = max(peak, min(before, now)), now
        time.sleep(0.02)
    if process.returncode:
        raise RuntimeError(f"{arguments} ended with {process.returncode}")
    return peak


def family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += family(int(child))
    except OSError:
        pass
    return found


def resident(pid: int) -> float:
    """Proportional memory of a process in MiB: shared pages count once over the tree."""
    try:
        return int(re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M).group(1)) / 1024
    except (OSError, AttributeError):
        return 0.0


def result_path(name: str) -> Path:
    facts = machine()
    slug = re.sub(r"[^a-z0-9]+", "-", facts["cpu"].lower()).strip("-")
    return RESULTS / f"{name}--{slug}-{facts['cores']}-cores.json"


def saved(name: str) -> Any:
    """The results of this machine that were written before."""
    return json.loads(result_path(name).read_text())["results"]


def save(name: str, results: Any) -> None:
    """Write `results/<name>--<cpu>-<cores>-cores.json`, and print it."""
    facts, path = machine(), result_path(name)
    path.parent.mkdir(exist_ok=True)
    text = json.dumps({"machine": facts, "results": results}, indent=1)
    path.write_text(text + "\n")
    print(text)


def as_float(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.float32) / 255


def save_picture(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(path)
