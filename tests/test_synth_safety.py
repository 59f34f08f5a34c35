"""What `synth` survives, run for real (see harness.py; `make stress` runs it with full counts).

Every harness is also run on a writer, a worker or a command that was broken on purpose, and must see it.
"""

import pytest
from harness import (
    bad_decoders,
    can_mount,
    crowd,
    dead_workers,
    faults,
    full_disk,
    fuzz,
    kills,
    same_bytes,
    signals,
)

PACKED = ("--layout", "shards")

pytestmark = pytest.mark.timeout(600)


def test_killed_at_any_moment_and_run_again(tmp_path):
    assert kills(tmp_path, 3, items=12) == []


@pytest.mark.parametrize("broken", ["naive_writer", "untidy", "orphans"])
def test_kills_see_a_broken_writer(tmp_path, broken):
    # every fourth kill spares the workers, which then must end by themselves; the first that is seen is enough
    assert kills(tmp_path, 12, items=8, broken=broken)


def test_the_same_bytes_however_it_is_run(tmp_path):
    assert same_bytes(tmp_path, items=4) == []


def test_bytes_that_depend_on_the_process_are_seen(tmp_path):
    assert same_bytes(tmp_path, items=3, broken="telltale")


def test_eight_processes_at_once(tmp_path):
    assert crowd(tmp_path, items=6, shards=3, more=PACKED) == []


def test_writers_in_each_others_way_are_seen(tmp_path):
    assert crowd(tmp_path, 4, items=12, broken="one_scratch")


def test_a_fault_at_any_operation_of_writing(tmp_path):
    problems, tried = faults(tmp_path, 6, items=2)
    assert (problems, tried) == ([], 6)


def test_a_fault_that_nobody_speaks_of_is_seen(tmp_path):
    assert faults(tmp_path, 6, broken="forgetful_writer")[0]


def test_a_disk_that_fills_up(tmp_path):
    if not can_mount():
        pytest.skip("no file system can be mounted here without being root")
    assert full_disk(tmp_path) == []


def test_damaged_images_among_good_ones(tmp_path):
    assert fuzz(tmp_path, 60) == []


def test_inputs_that_are_lost_are_seen(tmp_path):
    assert fuzz(tmp_path, 12, broken="hushed")


def test_a_decoder_that_crashes_hangs_or_eats_memory(tmp_path):
    assert bad_decoders(tmp_path) == []


def test_signals_while_packing(tmp_path):
    assert signals(tmp_path, 2, items=8, more=PACKED) == []


def test_a_killed_worker_costs_nothing_but_time(tmp_path):
    assert dead_workers(tmp_path, 1) == []
