"""Batches painted by several workers: the same files, one lost item a trouble, nothing left behind."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import COMMAND, workers_of
from PIL import Image

QUICK = ("--strokes", "40", "--num-frames", "3", "--format", "frames")


@pytest.fixture
def pictures(tmp_path, painting):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(5):
        Image.fromarray(np.roll(painting, 7 * number, axis=1)).save(folder / f"{number}.png")
    return folder


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_workers_make_the_same_files(paintproc, pictures, tmp_path):
    (pictures / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    found = []
    for workers in (1, 3):
        done = paintproc("generate", pictures, *QUICK, "-o", f"out{workers}", "--workers", workers)
        assert done.returncode == 6, done.stderr
        assert sorted(line.partition("/")[2] for line in done.stdout.splitlines()) == [f"{k}-process" for k in range(5)]
        assert done.stderr.count("broken.jpg") == 1 and "this is a bug" not in done.stderr
        found.append(contents(tmp_path / f"out{workers}"))
    assert found[0] == found[1]
    assert "failures.jsonl" in found[0] and len(found[0]) == 1 + 5 * 5
    again = paintproc("generate", pictures, *QUICK, "-o", "out3", "--workers", 2, "--json")
    assert again.stderr.count("is complete already") == 5
    lines = {Path(line["input"]).name: line for line in map(json.loads, again.stdout.splitlines())}
    assert lines.pop("broken.jpg")["exit_code"] == 3
    assert {name: line["frames"] for name, line in lines.items()} == {f"{k}.png": 3 for k in range(5)}


def test_standard_input_is_read_by_one(paintproc, pictures):
    done = paintproc("generate", "-i", "-", pictures / "1.png", *QUICK, "--workers", 2, input="")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--workers 1" in done.stderr


def test_a_killed_worker_costs_no_item(pictures, tmp_path):
    """The first time; the item is tried again."""
    process = start(pictures, tmp_path)
    os.kill(wait_for_workers(process, 2)[0], signal.SIGKILL)
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert len(output.splitlines()) == 5


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_ends_workers_too(pictures, tmp_path, number, code):
    process = start(pictures, tmp_path, strokes=3000)
    workers = wait_for_workers(process, 2)
    time.sleep(2)
    begun = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code, errors
    assert time.monotonic() - begun < 10
    assert not any(os.path.exists(f"/proc/{worker}") for worker in workers)  # noqa: PTH110
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith("-part")]


def start(pictures, tmp_path, strokes: int = 40) -> "subprocess.Popen[str]":
    arguments = [*QUICK, "--strokes", str(strokes), "-o", tmp_path / "out", "--workers", "2"]
    return subprocess.Popen(
        [COMMAND, "generate", pictures, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_workers(process: "subprocess.Popen[str]", count: int) -> list[int]:
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        found = workers_of(process.pid)
        if len(found) >= count:
            return found
        time.sleep(0.02)
    process.kill()
    pytest.fail(f"no workers: {process.communicate()}")
