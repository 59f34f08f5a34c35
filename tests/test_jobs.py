"""Many items in several processes: each gives one outcome, whatever happens to its worker."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, workers_of

from paintproc.errors import InputError
from paintproc.jobs import TRIES
from paintproc.jobs.local import run_jobs


def square(number: int) -> int:
    return number * number


def troubled(item: tuple[str, str]) -> str:
    """Does what the item says; leaves a line in the file it names at every try."""
    kind, path = item
    with Path(path).open("a") as file:
        file.write(f"{kind} {os.getpid()}\n")
    if kind == "bad":
        raise InputError("a.png is damaged.", "Look at it.")
    if kind == "bug":
        raise ZeroDivisionError("of zero")
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "killed once" and Path(path).read_text().count(kind) < 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "exits":
        os._exit(3)
    if kind == "stuck":
        time.sleep(60)
    if kind == "swollen":
        return str(len(bytearray(8 << 30)))
    if kind == "unsendable":
        return lambda: None  # type: ignore[return-value]
    return kind


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_every_item_gives_one_outcome(workers):
    outcomes = list(run_jobs(range(23), square, workers=workers))
    assert sorted((outcome.item, outcome.result) for outcome in outcomes) == [(n, n * n) for n in range(23)]
    assert all((outcome.error, outcome.exit_code) == ("", 0) for outcome in outcomes)


def test_nothing_to_do():
    assert list(run_jobs([], square, workers=3)) == []


def test_trouble_costs_one_item(tmp_path):
    kinds = ["fine", "bad", "bug", "killed", "killed once", "exits", "stuck", "swollen", "unsendable"]
    items = [(kind, str(tmp_path / kind)) for kind in kinds] + [("fine", str(tmp_path / f"f{k}")) for k in range(6)]
    outcomes = list(run_jobs(items, troubled, workers=2, time_limit=6, memory=4 << 30))
    assert sorted(outcome.item for outcome in outcomes) == sorted(items)
    found = {outcome.item[0]: outcome for outcome in outcomes}
    tries = {kind: (tmp_path / kind).read_text().count("\n") for kind in kinds}
    assert found["fine"].result == "fine"
    assert (found["bad"].error, found["bad"].exit_code) == ("a.png is damaged. Look at it.", 3)
    assert found["bug"].exit_code == 1 and "ZeroDivisionError: of zero (troubled" in found["bug"].error
    assert found["killed"].exit_code == 1 and "signal 9" in found["killed"].error
    assert found["killed once"].result == "killed once"
    assert "exit code 3" in found["exits"].error
    assert found["stuck"].error == "it took longer than 6 s"
    assert (found["swollen"].error, found["swollen"].exit_code) == ("out of memory", 5)
    assert "exit code 1" in found["unsendable"].error
    once = {"fine": 1, "bad": 1, "bug": 1, "stuck": 1, "swollen": 1, "killed once": 2}
    assert tries == once | dict.fromkeys(("killed", "exits", "unsendable"), TRIES)


def test_whoever_stops_listening_leaves_no_worker(tmp_path):
    running = run_jobs([(k, str(tmp_path / "x")) for k in ("fine", "stuck", "stuck")], troubled, workers=2)
    next(running)
    assert workers_of(os.getpid())
    running.close()
    assert not workers_of(os.getpid())


def test_a_check_that_raises_stops_it_at_once(tmp_path):
    begun = time.monotonic()

    def check() -> None:
        if time.monotonic() - begun > 1.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(run_jobs([("stuck", str(tmp_path / "x"))] * 3, troubled, workers=2, check=check))
    assert time.monotonic() - begun < 8
    assert not workers_of(os.getpid())


@pytest.mark.parametrize("asked", ["the system", "a thread"])
def test_no_worker_outlives_a_killed_parent(tmp_path, asked):
    code = "" if asked == "the system" else "import ctypes; ctypes.CDLL = None\n"
    code += (
        "from test_jobs import troubled; from paintproc.jobs.local import run_jobs\n"
        f"if __name__ == '__main__': list(run_jobs([('stuck', {str(tmp_path / 'x')!r})] * 2, troubled, workers=2))"
    )
    (tmp_path / "main.py").write_text(code)
    environment = os.environ | {"PYTHONPATH": f"{ROOT}/tests{os.pathsep}{ROOT}"}
    parent = subprocess.Popen([sys.executable, tmp_path / "main.py"], env=environment)
    log = tmp_path / "x"
    end = time.monotonic() + 20
    while not (log.exists() and log.read_text().count("\n") == 2) and time.monotonic() < end:
        time.sleep(0.05)
    pids = [line.split()[-1] for line in log.read_text().splitlines()]
    assert len(pids) == 2 and all(Path("/proc", pid).exists() for pid in pids)
    parent.kill()
    parent.wait()
    end = time.monotonic() + 5
    while any(Path("/proc", pid).exists() for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(Path("/proc", pid).exists() for pid in pids)
