"""Many items on Ray: the promises of local processes, also where Ray's own processes are killed."""

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from harness import command, environment, make_inputs, reference, tree
from test_jobs import troubled

from paintproc.errors import Interrupted, MissingError
from paintproc.jobs import Engine, driver, run_jobs
from paintproc.jobs.driver import Setup, Task
from paintproc.jobs.ray import AHEAD
from paintproc.stopping import check_stopped

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")

CLUSTER = """
import sys, threading
from ray.cluster_utils import Cluster
health = {f"health_check_{what}": n for what, n in
          (("initial_delay_ms", 500), ("period_ms", 500), ("timeout_ms", 1000), ("failure_threshold", 2))}
cluster = Cluster(initialize_head=True, head_node_args=dict(
    num_cpus=1, include_dashboard=False, object_store_memory=80 << 20, _system_config=health))
node = cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
# the raylet of a node must not stay as a zombie, which Ray's processes take for alive
threading.Thread(target=node.all_processes["raylet"][0].process.wait, daemon=True).start()
pids = [found[0].process.pid for found in (node.all_processes["raylet"], cluster.head_node.all_processes["gcs_server"])]
print(cluster.address, *pids, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
"""Without these Ray uses a token of its own, in the home of whoever runs the tests."""


def family(pid: int) -> dict[int, str]:
    """A process and all below it, with their command lines."""
    found = {}
    try:
        found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found |= family(int(child))
    except OSError:
        pass
    return found


def running(pids: Any, seconds: float) -> list[int]:
    """Which of these processes are still there after so many seconds, or at once when none is."""
    end = time.monotonic() + seconds
    while left := [pid for pid in pids if is_running(pid)]:
        if time.monotonic() > end:
            break
        time.sleep(0.05)
    return left


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(what: Callable[[], Any], process: "subprocess.Popen[Any]", seconds: float = 60) -> Any:
    """The first answer that is not empty, while a process runs."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.02)
    raise AssertionError(f"it did not come to that; exit code {process.poll()}")


def start_on_ray(inputs: Path, out: Path, *more: object, **shim: object) -> "subprocess.Popen[str]":
    """The command on Ray, with a writer that takes its time, so that items can be hit."""
    variables = environment(**({"SHIM_BREAK": "slow_writer"} | TOKEN | shim))
    return subprocess.Popen(
        command(inputs, out, "--engine", "ray", "--workers", 2, *more),
        env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def unfinished(path: Path) -> None:
    """Work that takes long, and cleans up when it is asked to stop."""
    path.touch()
    try:
        for _ in range(600):
            check_stopped()
            time.sleep(0.1)
    finally:
        path.unlink()


def slots_at_work(pid: int) -> list[int]:
    """Ray's processes that work on an item; Ray names them by what they do."""
    return [number for number, name in family(pid).items() if name.startswith("ray::Slot.do")]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("ray") / "in", 12)


@pytest.fixture(scope="module")
def wanted(inputs: Path) -> dict[str, str]:
    """What local processes make of them."""
    return reference(inputs.parent, inputs, "--workers", 2)[0]


@pytest.fixture(scope="module")
def cluster() -> Iterator[SimpleNamespace]:
    """Two nodes with one CPU each; the names of sockets must be short, so their folder is not pytest's."""
    with tempfile.TemporaryDirectory(prefix="ray-test-", ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [sys.executable, "-c", CLUSTER],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": folder, **TOKEN}, start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        address, node, head = process.stdout.readline().split()
        yield SimpleNamespace(address=address, node=int(node), head=int(head), process=process)
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        process.stdout.close()


@needs_ray
def test_trouble_costs_one_item(tmp_path):
    kinds = ["fine", "bad", "bug", "killed", "killed once", "exits", "stuck", "swollen", "unsendable"]
    names = [(kind, str(tmp_path / kind)) for kind in kinds] + [("fine", str(tmp_path / f"f{k}")) for k in range(20)]
    taken = 0

    def items() -> Iterator[tuple[str, str]]:
        nonlocal taken
        for item in names:
            taken += 1
            yield item

    outcomes = []
    for outcome in run_jobs(items(), troubled, Engine("ray", workers=2), time_limit=3, memory=4 << 30):
        outcomes.append(outcome)
        assert taken - len(outcomes) <= AHEAD * 2
    assert sorted(outcome.item for outcome in outcomes) == sorted(names)
    found = {outcome.item[0]: outcome for outcome in outcomes}
    tries = {kind: (tmp_path / kind).read_text().count("\n") for kind in kinds}
    assert found["fine"].result == "fine"
    assert (found["bad"].error, found["bad"].exit_code) == ("a.png is damaged. Look at it.", 3)
    assert found["bug"].exit_code == 1 and "ZeroDivisionError: of zero (troubled" in found["bug"].error
    assert found["killed"].exit_code == 1 and "signal 9" in found["killed"].error and tries["killed"] == 2
    assert found["killed once"].result == "killed once" and tries["killed once"] == 2
    assert "exit code 3" in found["exits"].error
    assert found["stuck"].error == "it took longer than 3 s" and tries["stuck"] == 1
    assert (found["swollen"].error, found["swollen"].exit_code) == ("out of memory", 5)
    assert found["unsendable"].exit_code == 1
    # kernels stay loaded: few processes do many items
    assert len({(tmp_path / f"f{k}").read_text().split()[-1] for k in range(20)}) <= 8


@needs_ray
def test_killed_processes_of_ray_and_the_same_bytes(tmp_path, inputs, wanted):
    out = tmp_path / "out"
    process = start_on_ray(inputs, out)
    os.kill(wait_for(lambda: slots_at_work(process.pid), process)[0], signal.SIGKILL)
    wait_for(lambda: len(list(out.glob("*/*/sequence.json"))) > 3, process)
    workers = [pid for pid, name in family(process.pid).items() if "spawn_main" in name]
    # the last ones to be started are workers; the first is the driver
    os.kill(max(workers), signal.SIGKILL)
    everything = family(process.pid)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert said.splitlines()[0] == "12 inputs: 12 done, 0 skipped, 0 failed; 12 sequences." and said.count("\n") == 2
    assert tree(out) == wanted
    assert not running(everything, 3)


@needs_ray
def test_a_signal_leaves_no_process_of_ray(tmp_path, inputs):
    out = tmp_path / "out"
    process = start_on_ray(inputs, out)
    wait_for(lambda: slots_at_work(process.pid), process)
    everything = family(process.pid)
    assert any("raylet" in name for name in everything.values())
    process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    _, said = process.communicate(timeout=30)
    assert process.returncode == 75 and said.startswith("paintproc: Stopped by SIGTERM"), said
    assert time.monotonic() - begun < 10
    assert not running(everything, 0.5)
    assert not list(tmp_path.rglob("*.paintproc-part"))


@needs_ray
def test_a_killed_command_takes_ray_with_it(tmp_path, inputs):
    process = start_on_ray(inputs, tmp_path / "out")
    wait_for(lambda: any("raylet" in name for name in family(process.pid).values()), process)
    everything = family(process.pid)
    process.kill()
    process.wait()
    assert process.stderr is not None
    process.stderr.close()
    assert not running(everything, 20)


@needs_ray
class TestCluster:
    """In this order: the last test loses the cluster."""

    def test_who_stops_leaves_no_actor_and_nothing_unfinished(self, tmp_path, cluster, monkeypatch):
        for name, value in TOKEN.items():
            monkeypatch.setenv(name, value)
        paths = [tmp_path / "a", tmp_path / "b"]
        slots: list[int] = []

        def check() -> None:
            if all(path.exists() for path in paths):
                slots.extend(slots_at_work(cluster.process.pid))
                raise Interrupted

        with pytest.raises(Interrupted):
            list(run_jobs(paths, unfinished, Engine("ray", workers=2, address=cluster.address), check=check))
        assert len(slots) == 2 and not running(slots, 3)
        assert not any(path.exists() for path in paths)

    def test_a_lost_node_and_the_same_bytes(self, tmp_path, inputs, wanted, cluster):
        out = tmp_path / "out"
        process = start_on_ray(inputs, out, "--address", cluster.address)
        wait_for(lambda: len(slots_at_work(cluster.process.pid)) == 2, process)
        lost = family(cluster.node)
        assert any(name.startswith("ray::Slot") for name in lost.values())
        os.kill(cluster.node, signal.SIGKILL)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
        assert tree(out) == wanted
        assert not running(lost, 20)

    def test_a_lost_cluster_is_said_in_one_sentence(self, tmp_path, inputs, cluster):
        out = tmp_path / "out"
        process = start_on_ray(
            inputs, out, "--address", cluster.address, "--strokes", 4000, RAY_gcs_rpc_server_reconnect_timeout_s=2
        )  # fmt: skip
        wait_for(lambda: slots_at_work(cluster.process.pid), process)
        os.kill(cluster.head, signal.SIGKILL)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 5 and said.count("\n") == 1, said
        assert said.startswith(f"paintproc: The Ray cluster at {cluster.address} was lost. What was finished is kept;")


@needs_ray
def test_an_address_where_nothing_is(tmp_path, inputs):
    process = start_on_ray(inputs, tmp_path / "out", "--address", "127.0.0.1:1")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 5 and said.startswith("paintproc: No Ray cluster was joined at 127.0.0.1:1: "), said
    assert said.count("\n") == 1


def test_ray_that_is_not_installed(tmp_path, inputs, monkeypatch):
    words = command(inputs, tmp_path / "out", "--engine", "ray")[1:]
    code = f"import sys; sys.modules['ray'] = None; sys.argv[1:] = {words!r}; from paintproc.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        4, "paintproc: Ray is not installed. Run: pip install 'paintproc[ray]', or use --engine local.\n"
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingError):
        run_jobs([], troubled, Engine("ray"))


def test_options_of_ray_need_ray(paintproc):
    for option, value in (("--address", "auto"), ("--memory-per-item", "2"), ("--gpus-per-item", "1")):
        done = paintproc("synth", "strokes", "in", "-o", "out", option, value)
        assert (done.returncode, done.stderr) == (2, f"paintproc: {option} needs --engine ray.\n")


class RayError(Exception):
    pass


class FakeRay:
    """As much of Ray as the driver's crew uses. Every slot starts if `starts`, and every call of `do` is lost."""

    exceptions = SimpleNamespace(RayError=RayError)

    def __init__(self, starts: bool = True, nodes: tuple[dict[str, float], ...] = ()) -> None:
        self.starts, self.resources, self.made, self.killed = starts, nodes, [], []

    def remote(self, kind: Any) -> Any:
        return SimpleNamespace(options=lambda **asked: SimpleNamespace(remote=lambda setup: self.actor(asked)))

    def actor(self, asked: dict[str, Any]) -> Any:
        self.made.append(asked)
        answers = {"look": "", "do": RayError("its node has died")}
        return SimpleNamespace(
            **{name: SimpleNamespace(remote=lambda *_, name=name: (len(self.made), name)) for name in answers}
        )

    def cluster_resources(self) -> dict[str, float]:
        return {name: sum(node.get(name, 0) for node in self.resources) for name in ("CPU", "GPU", "memory")}

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Resources": node, "Alive": True} for node in self.resources]

    def wait(self, calls: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        return (calls if self.starts else []), []

    def get(self, call: tuple[int, str]) -> str:
        if call[1] == "do":
            raise RayError("its node has died")
        return ""

    def kill(self, actor: Any) -> None:
        self.killed.append(actor)


def crew_on(ray: FakeRay, engine: Engine) -> tuple[Any, list[Any]]:
    sent: list[Any] = []
    setup = Setup(b"", engine, None, 10.0, 1, ".", ())
    return driver._Crew(ray, setup, sent.append), sent


def test_an_item_whose_slot_is_always_lost_is_given_up():
    ray = FakeRay()
    crew, sent = crew_on(ray, Engine("ray", workers=1))
    crew.waiting.append(Task(7, b""))
    for _ in range(50):
        crew.step()
    assert sent == [("done", 7, None, f"its process or machine was lost {driver.LOST_TRIES} times", 1)]
    assert len(ray.made) == len(ray.killed) == driver.LOST_TRIES and not crew.busy()


def test_slots_that_never_start_end_the_run(monkeypatch):
    ray = FakeRay()
    monkeypatch.setattr(ray, "get", lambda call: (_ for _ in ()).throw(RayError("first\nNo module named 'x'\n")))
    crew, _ = crew_on(ray, Engine("ray", workers=2))
    crew.waiting.append(Task(0, b""))
    with pytest.raises(driver._Failed, match="workers do not start: No module named 'x'"):
        for _ in range(50):
            crew.step()


@pytest.mark.parametrize("gpus", [1, 2])
def test_a_cluster_without_room_is_not_waited_for(monkeypatch, gpus):
    """With room that others use, it is."""
    monkeypatch.setattr(driver, "ROOM_PATIENCE", 0.0)
    ray = FakeRay(starts=False, nodes=({"CPU": 4.0, "memory": 8e9}, {"CPU": 1.0, "GPU": 1.0, "memory": 8e9}))
    crew, _ = crew_on(ray, Engine("ray", workers=0, address="auto", gpus=gpus, memory=2 * 10**9))
    crew.waiting.append(Task(0, b""))
    if gpus == 1:
        for _ in range(9):
            crew.step()
    else:
        with pytest.raises(driver._Failed, match="asks for 1 CPU, 2 GPU, 2 GB of memory"):
            for _ in range(9):
                crew.step()
    assert len(ray.made) == 1 and ray.made[0]["num_gpus"] == gpus and ray.made[0]["memory"] == 2 * 10**9


def test_a_slot_that_does_not_answer_is_given_up(monkeypatch):
    monkeypatch.setattr(driver, "SPARE", -20.0)
    ray = FakeRay()
    monkeypatch.setattr(ray, "wait", lambda calls, **_: ([call for call in calls if call[1] == "look"], []))
    crew, sent = crew_on(ray, Engine("ray", workers=1))
    crew.waiting.append(Task(3, b""))
    crew.step()
    crew.step()
    assert sent == [("done", 3, None, "it took longer than 10 s", 1)] and len(ray.killed) == 1


def test_as_many_workers_as_the_cluster_has_room_for():
    ray = FakeRay(nodes=({"CPU": 8.0, "GPU": 1.0, "memory": 64e9}, {"CPU": 4.0, "memory": 64e9}))
    assert crew_on(ray, Engine("ray", workers=0, address="auto"))[0].most == 12
    assert crew_on(ray, Engine("ray", workers=0, address="auto", gpus=0.25))[0].most == 4
    assert crew_on(ray, Engine("ray", workers=3, address="auto"))[0].most == 3


@pytest.fixture
def main_file():
    """The file of the main module, which a slot takes away, is there again afterwards; under xdist there is none."""
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    yield
    if file is not None:
        main.__file__ = file


def test_a_machine_without_the_folder_is_named(tmp_path, main_file):
    here = Path.cwd()
    setup = Setup(b"", Engine("ray", address="auto"), None, 10.0, 1, str(tmp_path / "gone"), ())
    assert "has no folder" in driver.Slot(setup).look()
    other = Setup(b"", Engine("ray", address="auto"), None, 10.0, 1, str(here), (), version="0.0")
    assert "and here it is 0.0" in driver.Slot(other).look()
    assert Path.cwd() == here
