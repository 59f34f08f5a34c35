"""The batch file for Slurm, run as Slurm runs it: signals, requeueing, and the same bytes."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import ROOT
from harness import COMMAND, SETTINGS, environment, make_inputs, reference, tree

BATCH_FILE = ROOT / "examples" / "synth.sbatch"


def directives() -> dict[str, str]:
    lines = [line.split()[1] for line in BATCH_FILE.read_text().splitlines() if line.startswith("#SBATCH ")]
    return {name.removeprefix("--"): value for name, _, value in (line.partition("=") for line in lines)}


@pytest.fixture
def task(tmp_path):
    """A function that starts one task of a job array; `scontrol` writes down what it was asked."""
    programs = tmp_path / "bin"
    programs.mkdir()
    scontrol = programs / "scontrol"
    scontrol.write_text('#!/bin/sh\necho "$@" >> "$(dirname "$0")/asked"\n')
    scontrol.chmod(0o755)

    def start(out: Path, index: int, **variables: object) -> "subprocess.Popen[str]":
        path = os.pathsep.join([str(programs), str(COMMAND.parent), os.environ["PATH"]])
        slurm = {"SLURM_ARRAY_TASK_ID": index, "SLURM_ARRAY_TASK_COUNT": 3, "SLURM_ARRAY_TASK_MIN": 0,
                 "SLURM_JOB_ID": 40 + index, "SLURM_CPUS_PER_TASK": 1}  # fmt: skip
        return subprocess.Popen(
            ["bash", BATCH_FILE, "strokes", tmp_path / "in", "-o", out, *SETTINGS],
            env=environment(**({"PATH": path} | slurm | variables)), stderr=subprocess.PIPE, text=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip

    return start


def asked(folder: Path) -> str:
    path = folder / "bin" / "asked"
    return path.read_text() if path.exists() else ""


def wait_for_item(out: Path, process: "subprocess.Popen[str]") -> None:
    end = time.monotonic() + 60
    while not list(out.glob("*/*/sequence.json")) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)


def test_the_batch_file_asks_for_what_the_page_says():
    found = directives()
    assert found["signal"] == "B:USR1@120" and "requeue" in found and found["open-mode"] == "append"
    page = (ROOT / "docs" / "cluster.md").read_text()
    assert "examples/synth.sbatch" in page and BATCH_FILE.read_text() in page


def test_usr1_requeues_a_task_and_the_bytes_are_the_same(tmp_path, task):
    inputs = make_inputs(tmp_path / "in", 6)
    wanted, _ = reference(tmp_path, inputs, "--workers", 1)
    out = tmp_path / "out"
    process = task(out, 1, SHIM_BREAK="slow_writer")
    wait_for_item(out, process)
    # to the script alone, as --signal=B: says
    process.send_signal(signal.SIGUSR1)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0 and "Stopped by SIGUSR1" in said
    assert asked(tmp_path) == "requeue 41\n"
    for index in (1, 0, 2):
        process = task(out, index, SLURM_RESTART_COUNT=1)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
        assert f"this is part {index} of 3" in said
    assert asked(tmp_path) == "requeue 41\n"
    assert tree(out) == wanted


@pytest.mark.parametrize("why", ["cancelled", "too often"])
def test_a_task_is_not_requeued_for_ever(tmp_path, task, why):
    make_inputs(tmp_path / "in", 6)
    process = task(tmp_path / "out", 0, SHIM_BREAK="slow_writer", SLURM_RESTART_COUNT=50 if why == "too often" else 0)
    wait_for_item(tmp_path / "out", process)
    process.send_signal(signal.SIGTERM if why == "cancelled" else signal.SIGUSR1)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75 and "Stopped by" in said and not asked(tmp_path)


def test_a_failure_is_the_tasks_failure(tmp_path, task):
    (tmp_path / "in").mkdir()
    process = task(tmp_path / "out", 0)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 3 and not asked(tmp_path), said
