"""What `synth` must survive, with full counts (the tests run smaller ones): `make stress`.

    python benchmarks/stress.py [WORDS]

With WORDS only the cases that hold them are run, and their lines renewed. Writes
`results/stress--<cpu>-<cores>-cores.json`; exit code 1 where anything went wrong.
"""

import functools
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import harness
import stops
from common import save, saved

from paintproc.weights.manifest import named
from paintproc.weights.store import state

PACKED = ("--layout", "shards")
LOOKING = "where MobileSAM looks"
"""Part of the names of cases that need its weights."""


def stop_weights(folder: Path, count: int) -> stops.Stops:
    """Signals to `weights get`, or where `count` is 0 in chosen calls."""
    with stops.dripping_server() as address:

        def make(folder: Path) -> stops.Case:
            return stops.weights_case(address)

        if count == 0:
            return stops.strikes(folder, make, stops.STRIKES["weights"])
        return stops.signals(folder, make, count)


def looking(make: Callable[..., stops.Case]) -> Callable[[Path], stops.Case]:
    return functools.partial(make, scene="auto")


CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "kill -9 of the process group, 60 items": (lambda f: harness.kills(f, 50), "50 kills"),
    "kill -9 while shards are packed": (lambda f: harness.kills(f, 10, items=24, more=PACKED), "10 kills"),
    "1, 2, 4 workers, 3 shards, other place": (lambda f: harness.same_bytes(f, 60), "60 items"),
    "8 processes at once": (lambda f: harness.crowd(f, items=60), "60 items"),
    "8 processes at once, 3 shards": (lambda f: harness.crowd(f, items=60, shards=3), "60 items"),
    "8 processes at once, packing": (lambda f: harness.crowd(f, items=60, more=PACKED), "60 items"),
    "8 processes at once, 3 shards, packing": (lambda f: harness.crowd(f, items=60, shards=3, more=PACKED), "60 items"),
    "8 processes at once, overwriting": (lambda f: harness.crowd(f, items=60, more=("--overwrite",)), "60 items"),
    "ENOSPC, EIO at each write, fsync, rename, mkdir": (
        lambda f: harness.faults(f, None, items=2),
        "once and for good",
    ),
    "the same for shards": (lambda f: harness.faults(f, 60, items=2, more=PACKED), "once and for good"),
    "a disk of 2 MiB": (harness.full_disk, "24 items"),
    "damaged images among good ones": (lambda f: harness.fuzz(f, 300), "300 images"),
    "a decoder that crashes, hangs, eats memory": (harness.bad_decoders, "3 of 9 items"),
    "SIGTERM and SIGUSR1 in every phase": (lambda f: harness.signals(f, 30, items=40), "30 signals"),
    "SIGTERM and SIGUSR1 while packing": (lambda f: harness.signals(f, 20, items=24, more=PACKED), "20 signals"),
    "kill -9 of single workers": (lambda f: harness.dead_workers(f, 10), "10 kills"),
    "SIGTERM at any moment: generate": (lambda f: stops.signals(f, stops.generate_case, 350, cold=25), ""),
    "SIGTERM at any moment: synth": (lambda f: stops.signals(f, stops.synth_case, 200), ""),
    "SIGTERM at any moment: weights get": (lambda f: stop_weights(f, 150), ""),
    f"SIGTERM at any moment: generate, {LOOKING}": (
        lambda f: stops.signals(f, looking(stops.generate_case), 220, busy=0),
        "",
    ),
    f"SIGTERM at any moment: synth, {LOOKING}": (lambda f: stops.signals(f, looking(stops.synth_case), 80, busy=0), ""),
    "SIGTERM in chosen calls: generate": (
        lambda f: stops.strikes(f, stops.generate_case, stops.STRIKES["generate"]),
        "",
    ),
    "SIGTERM in chosen calls: synth": (lambda f: stops.strikes(f, stops.synth_case, stops.STRIKES["synth"]), ""),
    "SIGTERM in chosen calls: weights get": (lambda f: stop_weights(f, 0), ""),
    f"SIGTERM in chosen calls: generate, {LOOKING}": (
        lambda f: stops.strikes(f, looking(stops.generate_case), stops.STRIKES["networks"]),
        "",
    ),
}
"""By name: what is run, and what is counted where it does not say that itself."""


def has_weights() -> bool:
    folder = os.environ.get("PAINTPROC_WEIGHTS")
    return bool(folder) and state(named("mobile-sam"), Path(str(folder))) == "here"


def main() -> int:
    words = " ".join(sys.argv[1:])
    results, wrong = (saved("stress") if words else {}), 0
    for name, (work, count) in CASES.items():
        if words not in name:
            continue
        if LOOKING in name and not has_weights():
            print(f"{name}: skipped, PAINTPROC_WEIGHTS names no folder with mobile-sam", flush=True)
            continue
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            found = work(Path(folder))
        if isinstance(found, tuple):
            found, tried = found
            count = f"{tried} cases, {count}"
        if isinstance(found, stops.Stops):
            found, count = found.problems, str(found)
        wrong += len(found)
        results[name] = {"count": count, "problems": found, "seconds": round(time.monotonic() - begun)}
        print(name, results[name], flush=True)
    save("stress", results)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
