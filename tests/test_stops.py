"""Signals at any moment, run for real (see stops.py; `make stress` runs it with full counts).

Every check is also run on a command that was broken on purpose, and must see it.
"""

import functools
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import COMMAND, WEIGHTS
from stops import STRIKES, dripping_server, generate_case, signals, strikes, synth_case, weights_case

pytestmark = pytest.mark.timeout(600)

FEW = {
    "generate": ("threading:Thread.start:2", "os:mkdir:1", "numba.core.caching:CompileResultCacheImpl.rebuild:1"),
    "synth": ("multiprocessing.process:BaseProcess.start:2",),
    "weights": ("http.client:HTTPResponse.read1:3", "subprocess:Popen.__init__:1"),
}
"""The calls that were worst while handlers raised."""


@pytest.fixture(scope="module")
def address():
    with dripping_server() as found:
        yield found


def maker(kind, address):
    if kind == "weights":
        pytest.importorskip("torch", reason="torch is not installed: pip install 'paintproc[models]'")
    return {"generate": generate_case, "synth": synth_case, "weights": lambda folder: weights_case(address)}[kind]


@pytest.mark.parametrize(("kind", "count"), [("generate", 6), ("synth", 3), ("weights", 4)])
def test_at_any_moment(tmp_path, kind, count, address):
    found = signals(tmp_path, maker(kind, address), count, busy=1)
    assert found.problems == [], found
    assert found.ended.total() == count


@pytest.mark.parametrize("kind", FEW)
def test_in_chosen_calls(tmp_path, kind, address):
    found = strikes(tmp_path, maker(kind, address), FEW[kind], whens=("after",))
    assert found.problems == [], found


def test_where_a_network_looks(tmp_path, monkeypatch):
    if not WEIGHTS:
        pytest.skip("PAINTPROC_WEIGHTS names no folder with mobile-sam: `paintproc weights get mobile-sam`")
    pytest.importorskip("torch")
    monkeypatch.setenv("PAINTPROC_WEIGHTS", WEIGHTS)
    make = functools.partial(generate_case, scene="networks")
    found = strikes(tmp_path, make, STRIKES["networks"][:2], whens=("before",))
    assert found.problems == [], found


@pytest.mark.parametrize(
    ("broken", "words"),
    [("blaming", "ended with 3"), ("littering", "it left"), ("lingering", "not end within")],
)
def test_a_broken_command_is_seen(tmp_path, broken, words):
    case = generate_case(tmp_path)
    if broken == "lingering":
        found = signals(tmp_path, generate_case, 1, busy=0, within=1.0, broken="lingering,slow_drawing")
    else:
        found = strikes(tmp_path, lambda folder: case, ("PIL.Image:Image.save:1",), whens=("after",), broken=broken)
    assert any(words in problem for problem in found.problems), found.problems


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
@pytest.mark.parametrize("words", [["generate", "-i", "-"], ["generate", "--images-from", "-"]], ids=str)
def test_waiting_for_standard_input(tmp_path, words, number, code):
    run = [COMMAND, *words, "-o", "out"]
    quiet = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    process = subprocess.Popen(run, cwd=tmp_path, **quiet)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.5)
    process.send_signal(number)
    process.wait(8)
    assert (process.returncode, len(process.stderr.read().splitlines())) == (code, 1)
    process.stdin.close()
    process.stderr.close()


WAITING = """if True:
    import os, sys, threading, time
    from pathlib import Path
    from paintproc import stopping
    stopping.PATIENCE, stopping.GRACE = 0.5, 1.5
    stopping.listen(grace=stopping.GRACE)
    with stopping.removed_at_the_end(Path("unfinished")):
        os.mkdir("unfinished")
        Path("unfinished", "part").touch()
        os.kill(os.getpid(), {number})
        begun = time.monotonic()
        try:
            while time.monotonic() < begun + 20:
                time.sleep(0.05)
                {look}
        finally:
            print(round(time.monotonic() - begun, 1), flush=True)
            time.sleep(20)
"""


@pytest.mark.parametrize(("look", "least"), [("pass", 0.5), ("stopping.check_stopped()", 1.5)], ids=["blind", "slow"])
@pytest.mark.parametrize(("number", "code"), [(15, 75), (2, 130)])
def test_a_program_that_does_not_end_is_ended(tmp_path, look, least, number, code):
    """Where it does not notice the signal, and where it notices, and its cleanup hangs."""
    import time

    begun = time.monotonic()
    run = [sys.executable, "-c", WAITING.format(number=number, look=look)]
    done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, timeout=30)
    assert least < time.monotonic() - begun < least + 8
    assert (done.returncode, done.stderr.count("\n"), list(tmp_path.iterdir())) == (code, 1, [])
    assert "Traceback" not in done.stderr


def test_what_must_not_be_cut_short_is_not(tmp_path):
    code = """if True:
        import os, time
        from paintproc import stopping
        stopping.PATIENCE = 0.2
        stopping.listen()
        with stopping.unbroken():
            os.kill(os.getpid(), 15)
            time.sleep(1)
            print("whole", flush=True)
        time.sleep(20)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=30)
    assert (done.returncode, done.stdout) == (75, "whole\n")


def test_a_second_signal_changes_nothing(tmp_path):
    code = WAITING.format(number=15, look="os.kill(os.getpid(), 2)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=30)
    assert (done.returncode, list(tmp_path.iterdir())) == (75, [])


def test_child_processes_end_too(tmp_path):
    code = """if True:
        import os, subprocess, sys, time
        from paintproc import stopping
        stopping.PATIENCE = 0.3
        stopping.listen()
        sleeping = "import time; time.sleep(60)"
        child = "import subprocess, sys\\n"
        child += f"p = subprocess.Popen([sys.executable, '-c', {sleeping!r}]); print(p.pid); p.wait()"
        process = subprocess.Popen([sys.executable, "-u", "-c", child], stdout=subprocess.PIPE, start_new_session=True)
        print(process.pid, int(process.stdout.readline()), flush=True)
        os.kill(os.getpid(), 15)
        time.sleep(20)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=30)
    assert done.returncode == 75
    for number in map(int, done.stdout.split()):
        # a killed process may wait for somebody to ask how it ended
        stat = Path(f"/proc/{number}/stat")
        assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_nohup_is_obeyed():
    code = (
        "import signal; from paintproc import stopping; signal.signal(1, signal.SIG_IGN); stopping.listen(); "
        "import os; os.kill(os.getpid(), 1); stopping.check_stopped(); print('on')"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "on\n"


def test_a_library_leaves_signals_alone():
    code = "import signal, paintproc.process.generate; print(signal.getsignal(15) == signal.SIG_DFL)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True\n"


def test_the_command_listens_before_it_loads_anything():
    code = (
        "import sys, paintproc.__main__ as m, paintproc.stopping as s; before = set(sys.modules)\n"
        "listen = m.listen\n"
        "heavy = {'typer', 'numpy', 'paintproc.cli'}\n"
        "def told(): print(*heavy & {*before, *sys.modules}); listen()\n"
        "m.listen = told; sys.argv = ['paintproc', '--version']; m.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[0] == "", done
    assert done.returncode == 0
