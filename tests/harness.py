"""What `synth` must survive, run for real: each function returns what went wrong, a sentence each.

The tests run it with small counts, `benchmarks/stress.py` with full ones.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

COMMAND = Path(sys.executable).with_name("paintproc")
SHIM = Path(__file__).parent / "shim"
SETTINGS = ("--method", "fit", "--size", "64", "--strokes", "20", "--num-frames", "4")
FORMATS = ("png", "jpg", "gif", "bmp", "webp", "tiff")


def make_inputs(folder: Path, count: int, reverse: bool = False) -> Path:
    """`count` small pictures of kinds that people have."""
    folder.mkdir(parents=True)
    for k in sorted(range(count), reverse=reverse):
        noise = np.random.default_rng(k).integers(0, 256, (6, 8, 3)).astype(np.uint8)
        picture = Image.fromarray(noise).resize((64, 48), Image.Resampling.BICUBIC)
        picture.save(folder / f"{k:03d}.{FORMATS[k % len(FORMATS)]}")
    return folder


def command(inputs: object, out: Path, *more: object) -> list[str]:
    return [str(part) for part in (COMMAND, "synth", "strokes", inputs, "-o", out, *SETTINGS, *more)]


def environment(**shim: object) -> dict[str, str]:
    """The environment of a command, with settings for `shim/sitecustomize.py`."""
    path = os.pathsep.join([str(SHIM), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"PYTHONPATH": path} | {name: str(value) for name, value in shim.items()}


def run(arguments: Sequence[str], timeout: float = 120, **shim: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(arguments, capture_output=True, text=True, timeout=timeout, env=environment(**shim))


def start(arguments: Sequence[str], **shim: object) -> "subprocess.Popen[bytes]":
    """The command in a session of its own."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    return subprocess.Popen(arguments, env=environment(**shim), **quiet)  # type: ignore[call-overload]


def tree(folder: Path) -> dict[str, str]:
    """The digest of every file below a folder, and every folder, hidden ones too."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        found[name] = "" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def compare(found: Path, wanted: dict[str, str], what: str) -> list[str]:
    now = tree(found)
    names = [name for name in {*now, *wanted} if now.get(name) != wanted.get(name)]
    return [f"{what}: {len(names)} paths differ, as {min(names)}"] if names else []


def survivors(session: int, seconds: float = 3.0) -> list[int]:
    """Processes of a session that are still there after a while."""
    end = time.monotonic() + seconds
    while True:
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z" and int(fields[3]) == session:
                found.append(int(stat.parent.name))
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.05)


def begun(out: Path, process: "subprocess.Popen[bytes]") -> None:
    """Wait for the first write, there or where shards are prepared, or for the end."""
    while process.poll() is None and not any(folder.exists() for folder in growing(out)):
        time.sleep(0.005)


def growing(out: Path) -> list[Path]:
    """Where a dataset grows: the output, and the hidden folder beside it."""
    return [out, *out.parent.glob(f".{out.name}.*.building")]


def writing(out: Path, process: "subprocess.Popen[bytes]") -> None:
    """Wait until an item is half-written, or for the end."""
    while process.poll() is None:
        for item in (item for folder in growing(out) for item in folder.glob("*/*")):
            if item.name not in ("pictures", "scenes") and item.is_dir() and not (item / "sequence.json").exists():
                return
        time.sleep(0.001)


def reference(folder: Path, inputs: object, *more: object) -> tuple[dict[str, str], float]:
    """The tree of an undisturbed run, and how long that took after its first write."""
    out = folder / "reference"
    process = start(command(inputs, out, *more))
    begun(out, process)
    first = time.monotonic()
    if process.wait() not in (0, 6):
        raise RuntimeError(f"the undisturbed run ended with {process.returncode}")
    return tree(out), time.monotonic() - first


def kills(folder: Path, count: int, items: int = 60, broken: str = "", more: Sequence[object] = ()) -> list[str]:
    """kill -9 of the whole process group at random moments after the first write; run again; the same tree."""
    inputs = make_inputs(folder / "in", items)
    wanted, length = reference(folder, inputs, "--workers", 2, *more)
    problems = []
    for number in range(count):
        out = folder / f"out-{number}"
        # every other time with a writer that takes its time, so that more of the kills hit it
        writer = broken or ("slow_writer" if number % 2 else "")
        process = start(command(inputs, out, "--workers", 2, *more), SHIM_BREAK=writer)
        begun(out, process)
        if broken or number % 3 == 2:
            writing(out, process)
        else:
            time.sleep(random.Random(number).uniform(0, length))
        # the group, or its leader alone: then the workers must follow it
        (os.killpg if number % 4 else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
        left = survivors(process.pid)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        problems += [f"kill {number}: processes are left"] * bool(left)
        again = run(command(inputs, out, "--workers", 2, *more), SHIM_BREAK=broken)
        if again.returncode:
            problems.append(f"kill {number}: the next run ended with {again.returncode}: {again.stderr[-300:]}")
        problems += compare(out, wanted, f"kill {number}")
        shutil.rmtree(out)
        if broken and problems:
            break
    return problems


def same_bytes(folder: Path, items: int = 12, broken: str = "") -> list[str]:
    """Workers, shards, another folder, time zone, locale and order on disk: the same bytes."""
    inputs = make_inputs(folder / "in", items)
    elsewhere = make_inputs(folder / "a folder with ünïcode" / "in", items, reverse=True)
    shutil.copy(inputs / "000.png", inputs / "zz-again.png")
    shutil.copy(inputs / "000.png", elsewhere / "zz-again.png")
    wanted, _ = reference(folder, inputs, "--workers", 1)
    problems = []
    places = {"TZ": "Asia/Tokyo", "LANG": "tr_TR.UTF-8", "LC_ALL": "C", "PYTHONHASHSEED": "7"}
    for number, (what, source, more, around) in enumerate(
        (
            ("2 workers", inputs, ("--workers", 2), {}),
            ("4 workers", inputs, ("--workers", 4), {}),
            ("another place", elsewhere, ("--workers", 2), places),
            ("3 threads", inputs, ("--workers", 1), {"PAINTPROC_THREADS": "3"}),
        )
    ):
        out = folder / f"out-{number}"
        done = run(command(source, out, *more), SHIM_BREAK=broken, **around)
        problems += [f"{what}: {done.returncode} {done.stderr[-300:]}"] * bool(done.returncode)
        problems += compare(out, wanted, what)
        if broken and problems:
            return problems
    out = folder / "out-shards"
    for index in (2, 0, 1):
        done = run(command(inputs, out, "--shard-index", index, "--num-shards", 3), SHIM_BREAK=broken)
        problems += [f"shard {index}: {done.returncode} {done.stderr[-300:]}"] * bool(done.returncode)
    problems += compare(out, wanted, "3 shards")
    for number in range(2):
        run(command(inputs, folder / f"packed-{number}", "--layout", "shards", "--workers", 2 - number))
    return problems + compare(folder / "packed-0", tree(folder / "packed-1"), "packed")


def crowd(
    folder: Path, processes: int = 8, items: int = 24, broken: str = "", shards: int = 1, more: Sequence[object] = ()
) -> list[str]:
    """Many processes at once on one output, with the same part of the work or with parts of their own."""
    inputs = make_inputs(folder / "in", items)
    wanted, _ = reference(folder, inputs, *more)
    out = folder / "out"
    parts = [("--shard-index", k % shards, "--num-shards", shards) for k in range(processes)]
    crew = [start(command(inputs, out, "--workers", 1, *part, *more), SHIM_BREAK=broken) for part in parts]
    codes = [process.wait() for process in crew]
    problems = [f"process {k} ended with {code}" for k, code in enumerate(codes) if code]
    problems += [f"{path.name} is left" for path in growing(out) if path != out]
    return problems + compare(out, wanted, f"{processes} at once")


def count_operations(folder: Path, inputs: Path, items: int, more: Sequence[object]) -> int:
    """How many writes, syncs, renames and new folders an undisturbed run needs."""
    counter = folder / "counter"
    done = run(command(inputs, folder / "counted", "--workers", 1, *more), SHIM_BELOW=folder / "counted",
               SHIM_COUNTER=counter)  # fmt: skip
    if done.returncode or counter.stat().st_size < 10 * items:
        raise RuntimeError(f"{counter.stat().st_size} operations; {done.stderr}")
    return counter.stat().st_size


def faults(
    folder: Path, count: int | None, items: int = 3, broken: str = "", more: Sequence[object] = ()
) -> tuple[list[str], int]:
    """An error at single operations of writing, once and for good: exit code 7; run again: the same tree.

    `count` of all cases, evenly, or all of them. The problems, and how many cases were tried.
    """
    inputs = make_inputs(folder / "in", items)
    wanted, _ = reference(folder, inputs, "--workers", 1, *more)
    total = count_operations(folder, inputs, items, more)
    cases = [(at, error, ever) for at in range(1, total + 1) for error in ("ENOSPC", "EIO") for ever in (0, 1)]
    if count is not None:
        # the case itself varies along the way
        cases = [cases[k * (len(cases) - 1) // max(1, count - 1)] for k in range(count)]

    def try_case(number: int) -> list[str]:
        at, error, ever = cases[number]
        out, counter = folder / f"out-{number}", folder / f"counter-{number}"
        arguments = command(inputs, out, "--workers", 1, *more)
        fault = {"SHIM_BELOW": out, "SHIM_COUNTER": counter, "SHIM_AT": at, "SHIM_ERROR": error, "SHIM_FOREVER": ever}
        done = run(arguments, SHIM_BREAK=broken, **fault)
        what = f"{error} at operation {at}{' and after' if ever else ''}"
        problems = []
        if done.returncode != 7 or "Traceback" in done.stderr or "bug" in done.stderr:
            problems.append(f"{what}: {done.returncode} {done.stderr[-300:]}")
        again = run(arguments, SHIM_BREAK=broken)
        if again.returncode:
            problems.append(f"{what}: the next run ended with {again.returncode} {again.stderr[-300:]}")
        problems += compare(out, wanted, what)
        shutil.rmtree(out, ignore_errors=True)
        return problems

    with ThreadPoolExecutor(2) as pool:
        return [problem for found in pool.map(try_case, range(len(cases))) for problem in found], len(cases)


def full_disk(folder: Path, items: int = 24) -> list[str]:
    """A file system of 2 MiB fills up on the way: exit code 7; with room again the same tree."""
    script = (
        "mount -t tmpfs -o size=2m none {disk} && "
        "{{ dd if=/dev/zero of={disk}/filler bs=1k count={filler} 2>/dev/null; "
        "SHIM_BREAK=roomy {line}; echo first $?; rm {disk}/filler; {line}; echo second $?; cp -r {disk}/out {copy}; }}"
    )
    inputs = make_inputs(folder / "in", items)
    wanted, _ = reference(folder, inputs)
    disk, copy = folder / "disk", folder / "copy"
    disk.mkdir()
    line = " ".join(map(repr, command(inputs, disk / "out", "--workers", 2, "-q")))
    # the first time the check before starting is told that there is room
    text = script.format(disk=disk, filler=1500, line=line, copy=copy)
    done = subprocess.run(["unshare", "-rm", "sh", "-c", text], capture_output=True, text=True, env=environment())
    if "first 7" not in done.stdout or "second 0" not in done.stdout:
        return [f"{done.stdout[-200:]} {done.stderr[-400:]}"]
    return compare(copy, wanted, "full disk")


def can_mount() -> bool:
    """Whether a user may mount a file system of its own here."""
    try:
        return subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode == 0
    except OSError:
        return False


def signals(folder: Path, count: int, items: int = 30, broken: str = "", more: Sequence[object] = ()) -> list[str]:
    """SIGTERM and SIGUSR1 at random moments: 75, nothing is left running, and the next run ends with the same tree."""
    inputs = make_inputs(folder / "in", items)
    wanted, length = reference(folder, inputs, "--workers", 2, *more)
    problems = []
    unheard = 0
    for number in range(count):
        out = folder / f"out-{number}"
        process = start(command(inputs, out, "--workers", 2, *more), SHIM_BREAK=broken)
        if number % 5:
            begun(out, process)
            time.sleep(random.Random(number).uniform(0, 0.9 * length))
        else:
            time.sleep(random.Random(number).uniform(0.35, 0.8))
        # Slurm tells the whole group, a shell its leader
        tell = os.kill if number % 3 else os.killpg
        tell(process.pid, signal.SIGTERM if number % 2 else signal.SIGUSR1)
        code = process.wait()
        finished = code == 0
        unheard += finished
        early = code in (-signal.SIGTERM, -signal.SIGUSR1) and not out.exists()
        if code != 75 and not finished and not early:
            problems.append(f"signal {number}: it ended with {code}")
        problems += [f"signal {number}: processes are left"] * bool(survivors(process.pid))
        problems += [f"signal {number}: it left {name}" for name in tree(folder) if "paintproc-part" in name]
        again = run(command(inputs, out, "--workers", 2, *more), SHIM_BREAK=broken)
        problems += [f"signal {number}: the next run ended with {again.returncode}"] * bool(again.returncode)
        problems += compare(out, wanted, f"signal {number}")
        shutil.rmtree(out)
    # the end may come first, but not often
    return problems + [f"{unheard} of {count} signals were not heard"] * (unheard > 1 + count // 4)


def dead_workers(folder: Path, count: int, items: int = 30) -> list[str]:
    """kill -9 of single workers: the items are painted by others, and nothing is left of the dead."""
    from conftest import workers_of

    inputs = make_inputs(folder / "in", items)
    wanted, length = reference(folder, inputs, "--workers", 2)
    problems = []
    for number in range(count):
        out = folder / f"out-{number}"
        process = start(command(inputs, out, "--workers", 2))
        begun(out, process)
        time.sleep(random.Random(number).uniform(0.2, 0.8) * length)
        for worker in workers_of(process.pid)[:1]:
            os.kill(worker, signal.SIGKILL)
        code = process.wait(60)
        problems += [f"worker {number}: it ended with {code}"] * bool(code)
        problems += compare(out, wanted, f"worker {number}")
        shutil.rmtree(out)
    return problems


def fuzz(folder: Path, count: int, good: int = 12, broken: str = "") -> list[str]:
    """`count` damaged images among good ones: every input accounted for, the good ones done."""
    inputs = make_inputs(folder / "in", good)
    makers = random.Random(1)
    for number in range(count):
        original = inputs / f"{number % good:03d}.{FORMATS[number % good % len(FORMATS)]}"
        damaged = damage(original.read_bytes(), number, makers)
        (inputs / f"bad-{number:04d}{original.suffix}").write_bytes(damaged)
    (inputs / "folder.png").mkdir()
    (inputs / "link.png").symlink_to("nowhere")
    os.mkfifo(inputs / "pipe.png")
    out = folder / "out"
    done = run(command(inputs, out, "--workers", 2), timeout=600, SHIM_BREAK=broken)
    return accounted(out, done, {path.name for path in inputs.iterdir()} - {"folder.png"}, good)


def damage(data: bytes, kind: int, makers: random.Random) -> bytes:
    """`data` with bits flipped, cut off, spliced, its lengths made extreme, or nothing of it left."""
    changed = bytearray(data)
    match kind % 6:
        case 0:
            for _ in range(makers.randint(1, 20)):
                changed[makers.randrange(len(changed))] ^= 1 << makers.randrange(8)
        case 1:
            del changed[makers.randrange(len(changed)) :]
        case 2:
            place = makers.randrange(len(changed))
            changed[place:place] = makers.randbytes(makers.randint(1, 200))
        case 3:
            place = makers.randrange(max(1, min(64, len(changed) - 4)))
            changed[place : place + 4] = makers.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4)])
        case 4:
            begin, end = sorted(makers.randrange(len(changed)) for _ in range(2))
            del changed[begin:end]
        case _:
            changed[len(changed) // 2 :] = makers.randbytes(len(changed) // 2)
    return bytes(changed)


def accounted(out: Path, done: "subprocess.CompletedProcess[str]", names: set[str], good: int) -> list[str]:
    """Whether every input is in the lists, once, with what became of it, and the counts add up."""
    if done.returncode not in (0, 6) or "Traceback" in done.stderr:
        return [f"it ended with {done.returncode}: {done.stderr[-400:]}"]
    lines = [json.loads(line) for line in (out / "inputs.jsonl").read_text().splitlines()]
    counts = json.loads((out / "dataset.json").read_text())["counts"]
    failures = out / "failures.jsonl"
    failed = [json.loads(line) for line in failures.read_text().splitlines()] if failures.exists() else []
    problems = []
    if sorted(line["input"] for line in lines) != sorted(names):
        problems.append(f"{len(lines)} lines for {len(names)} inputs")
    for line in lines:
        there = [path for name in line.get("sequences", ()) for path in out.glob(f"*/{name}/sequence.json")]
        if line["outcome"] == "done" and not there:
            problems.append(f"{line['input']} is done, and nothing is there")
        if line["outcome"] != "done" and not (line.get("reason") or line.get("error")):
            problems.append(f"{line['input']} has no reason")
        if line["outcome"] == "failed" and (line["exit_code"] == 1 and "bug" in line["error"]):
            problems.append(f"{line['input']}: {line['error']}")
        if line["outcome"] != "done" and not line["input"].startswith(("bad-", "link", "pipe", "HANG", "HOG", "CRASH")):
            problems.append(f"{line['input']} was good, and {line['outcome']}")
    if counts["inputs"] != counts["done"] + counts["skipped"] + counts["failed"] or len(failed) != counts["failed"]:
        problems.append(f"the counts do not add up: {counts}, {len(failed)} failures")
    if counts["done"] < good:
        problems.append(f"{counts['done']} of {good} good ones are done")
    return problems


def bad_decoders(folder: Path, good: int = 6) -> list[str]:
    """A decoder that crashes, hangs or eats memory costs its own item."""
    inputs = make_inputs(folder / "in", good)
    for word in ("CRASH", "HANG", "HOG"):
        (inputs / f"{word}.png").write_bytes((inputs / "000.png").read_bytes() + word.encode())
    out = folder / "out"
    done = run(command(inputs, out, "--workers", 2), SHIM_BREAK="bad_decoder")
    problems = accounted(out, done, {path.name for path in inputs.iterdir()}, good)
    failed = json.loads((out / "dataset.json").read_text())["counts"]["failed"]
    return problems + [f"{failed} failed instead of 3"] * (failed != 3)
