"""`paintproc generate` as people use it, and misuse it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import COMMAND
from PIL import Image

from paintproc.cli.generate import _output_folders
from paintproc.cli.inputs import list_inputs
from paintproc.media import count_frames
from paintproc.strokes.values import load_strokes

QUICK = ("--strokes", 30, "--num-frames", 4, "--fps", 10, "--duration", 1)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.rglob("*") if "paintproc-part" in p.name]


def test_one_picture(paintproc, small_file, painting):
    done = paintproc("generate", "--image", small_file, *QUICK)
    assert (done.returncode, done.stdout, done.stderr) == (0, "small-process\n", "")
    folder = small_file.parent / "small-process"
    assert sorted(tree(folder)) == [
        "frames/000.png", "frames/001.png", "frames/002.png", "frames/003.png",
        "process.mp4", "sequence.json", "sheet.png", "strokes.safetensors", "strokes.svg",
    ]  # fmt: skip
    record = json.loads((folder / "sequence.json").read_text())
    assert [frame["progress"] for frame in record["frames"]] == pytest.approx([0, 1 / 3, 2 / 3, 1], abs=1e-6)
    assert [frame["seconds"] for frame in record["frames"]] == [0, 1200, 2400, 3600]
    assert record["frames"][0]["stage"] == "blank"
    assert record["provenance"] == "synthetic process, not a recording"
    assert record["settings"]["strokes"] == record["strokes"] == 30
    blank, *_, last = [np.array(Image.open(folder / frame["file"])) for frame in record["frames"]]
    assert (blank == blank[0, 0]).all()
    error = np.mean((last / 255.0 - painting / 255.0) ** 2)
    assert record["painted_end"]["mse"] == pytest.approx(error)
    assert record["painted_end"]["psnr"] == pytest.approx(-10 * np.log10(error))
    assert count_frames(folder / "process.mp4") == 10
    assert len(load_strokes(folder / "strokes.safetensors")) == 30
    with Image.open(folder / "frames/001.png") as image:
        assert "not a recording" in image.text["Comment"]
    assert b"not a recording" in (folder / "process.mp4").read_bytes()


def test_the_same_command_gives_the_same_bytes(paintproc, small_file):
    for name, environment in (("a", {"TZ": "UTC"}), ("b", {"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7"})):
        variables = os.environ | environment | {"PAINTPROC_THREADS": "1" if name == "a" else "2"}
        assert paintproc("generate", "-i", small_file, *QUICK, "-o", name, env=variables).returncode == 0
    assert tree(small_file.parent / "a") == tree(small_file.parent / "b")


def test_a_finished_output_is_kept_another_refused_and_replaced_on_demand(paintproc, small_file):
    first = paintproc("generate", "-i", small_file, *QUICK)
    folder = small_file.parent / "small-process"
    before = tree(folder)
    again = paintproc("generate", "-i", small_file, *QUICK)
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert "complete already" in again.stderr
    other = paintproc("generate", "-i", small_file, *QUICK, "--seed", 5)
    assert other.returncode == 7
    assert "settings.seed is 0, not 5" in other.stderr
    assert tree(folder) == before
    (folder / "sheet.png").unlink()
    assert paintproc("generate", "-i", small_file, *QUICK).returncode == 0
    assert tree(folder) == before
    assert paintproc("generate", "-i", small_file, *QUICK, "--seed", 5, "--overwrite").returncode == 0
    assert tree(folder)["strokes.safetensors"] != before["strokes.safetensors"]
    assert not leftovers(small_file.parent)


def test_what_is_not_ours_is_never_touched(paintproc, small_file):
    folder = small_file.parent / "precious"
    folder.mkdir()
    (folder / "diary.txt").write_text("mine")
    for extra in ((), ("--overwrite",)):
        done = paintproc("generate", "-i", small_file, *QUICK, "-o", folder, *extra)
        assert done.returncode == 7
        assert done.stderr.count("\n") == 1
    assert tree(folder) == {"diary.txt": b"mine"}
    assert paintproc("generate", "-i", small_file, *QUICK).returncode == 0
    (small_file.parent / "small-process" / "notes.txt").write_text("mine")
    done = paintproc("generate", "-i", small_file, *QUICK, "--overwrite")
    assert done.returncode == 7
    assert "notes.txt" in done.stderr


def test_a_changed_file_is_not_thrown_away(paintproc, small_file):
    assert paintproc("generate", "-i", small_file, *QUICK).returncode == 0
    drawing = small_file.parent / "small-process" / "strokes.svg"
    drawing.write_text(drawing.read_text() + "<!-- mine -->")
    done = paintproc("generate", "-i", small_file, *QUICK)
    assert done.returncode == 7
    assert "strokes.svg was changed" in done.stderr
    assert drawing.read_text().endswith("<!-- mine -->")
    assert paintproc("generate", "-i", small_file, *QUICK, "--overwrite").returncode == 0


@pytest.mark.parametrize("own", [False, True])
def test_what_appears_while_painting_is_not_lost(tmp_path, small_file, own):
    """A diary, or the result of another process with another seed."""
    command = [COMMAND, "generate", "-i", small_file, "--strokes", "300", "--duration", "400", "-o", "late"]
    slow = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while not leftovers(tmp_path):
        time.sleep(0.01)
    if own:
        quick = [COMMAND, "generate", "-i", small_file, *map(str, QUICK), "-o", "late", "--seed", "1"]
        subprocess.run(quick, cwd=tmp_path, check=True)
    else:
        (tmp_path / "late").mkdir()
        (tmp_path / "late" / "diary.txt").write_text("mine")
    kept = tree(tmp_path / "late")
    _, errors = slow.communicate(timeout=60)
    assert slow.returncode == 7, errors
    assert tree(tmp_path / "late") == kept
    assert not leftovers(tmp_path)


def test_two_processes_on_one_output_agree(tmp_path, small_file):
    command = [COMMAND, "generate", "-i", small_file, *map(str, QUICK), "-o", "same"]
    both = [subprocess.Popen(command, cwd=tmp_path) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert not leftovers(tmp_path)


def test_formats_and_finish(paintproc, small_file, painting):
    formats = [word for kind in ("gif", "webp", "frames") for word in ("--format", kind)]
    done = paintproc("generate", "-i", small_file, *QUICK, *formats, "--finish", "exact", "--json")
    folder = small_file.parent / "small-process"
    assert {"process.gif", "process.webp"} < set(tree(folder))
    assert "process.mp4" not in tree(folder)
    assert np.array_equal(np.array(Image.open(folder / "frames/003.png")), painting)
    line = json.loads(done.stdout)
    record = json.loads((folder / "sequence.json").read_text())
    assert line.keys() == {"input", "output", "frames", "strokes", "psnr", "seconds"}
    assert line["psnr"] == record["painted_end"]["psnr"] < 60
    assert record["frames"][-1]["caption"] == "finished: the picture itself"


def test_standard_input_and_lists(paintproc, small_file):
    with small_file.open("rb") as stream:
        done = paintproc("generate", "--image", "-", *QUICK, stdin=stream)
    assert (done.returncode, done.stdout) == (0, "stdin-process\n")
    listing = f"{small_file}\0".encode()
    done = paintproc("generate", "--images-from", "-", "--null", *QUICK, "-o", "many", input=listing.decode())
    assert (done.returncode, done.stdout) == (0, "many/small-process\n")


def test_a_begun_canvas(paintproc, small_file, painting):
    begun = painting.copy()
    begun[:, 30:] = 250
    Image.fromarray(begun).save(small_file.parent / "half.png")
    done = paintproc("generate", "-i", small_file, *QUICK, "--canvas", "half.png")
    assert done.returncode == 0, done.stderr
    first = np.array(Image.open(small_file.parent / "small-process/frames/000.png"))
    assert np.array_equal(first, begun)
    Image.new("RGB", (10, 90)).save(small_file.parent / "tall.png")
    done = paintproc("generate", "-i", small_file, *QUICK, "--canvas", "tall.png", "-o", "x")
    assert done.returncode == 3
    assert "another shape" in done.stderr


def test_a_batch_loses_only_its_bad_items(paintproc, tmp_path, painting):
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    for name in ("one.png", "two.png", "deep/one.png"):
        Image.fromarray(painting).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    done = paintproc("generate", "-i", folder, folder / "deep" / "one.png", *QUICK, "-o", "out", "--json")
    assert done.returncode == 6
    lines = {line["input"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert len(done.stdout.splitlines()) == 5
    outputs = [p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*-process")]
    assert len(outputs) == 4, "two of them are called one, one is in a subfolder"
    assert {"two-process", "deep/one-process"} < set(outputs)
    assert lines[str(folder / "two.png")]["output"] == "out/two-process"
    assert lines[str(folder / "deep" / "one.png")]["frames"] == 4
    failure = json.loads((tmp_path / "out" / "failures.jsonl").read_text())
    assert lines[failure["input"]] == failure
    assert failure["input"].endswith("broken.jpg")
    assert failure["exit_code"] == 3


def test_a_list_of_failures_is_kept_true(paintproc, tmp_path, small_file):
    log = tmp_path / "failures.jsonl"
    log.write_text("my own log\n")
    done = paintproc("generate", "-i", small_file, "nowhere.png", *QUICK)
    assert (done.returncode, log.read_text()) == (7, "my own log\n")
    log.unlink()
    assert paintproc("generate", "-i", small_file, "nowhere.png", *QUICK).returncode == 6
    assert json.loads(log.read_text())["input"] == "nowhere.png"
    (tmp_path / "nowhere.png").write_bytes(small_file.read_bytes())
    assert paintproc("generate", "-i", small_file, "nowhere.png", *QUICK).returncode == 0
    assert not log.exists()


@pytest.mark.parametrize("name", ["a b", "line\nbreak", "emoji 🎨", "-dash", "quote'\"", "percent%s", "x" * 200])
def test_names(paintproc, tmp_path, painting, name):
    path = tmp_path / f"{name}.png"
    Image.fromarray(painting).save(path)
    done = paintproc("generate", "--strokes", 5, "--format", "sheet", "--image", path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / f"{name}-process" / "sheet.png").exists()
    if not name.isprintable():
        again = paintproc("generate", "--strokes", 6, "--format", "sheet", "--image", path)
        assert again.returncode == 7
        assert again.stderr.count("\n") == 1


def test_settings_from_everywhere(paintproc, small_file):
    (small_file.parent / "mine.toml").write_text('strokes = 11\nnum-frames = 3\nformat = ["sheet"]\nseed = 1\n')
    environment = os.environ | {"PAINTPROC_GENERATE_SEED": "2"}
    done = paintproc("generate", "-i", small_file, "--config", "mine.toml", "--num-frames", 5, env=environment)
    assert done.returncode == 0, done.stderr
    record = json.loads((small_file.parent / "small-process" / "sequence.json").read_text())
    found = {name: record["settings"][name] for name in ("strokes", "num_frames", "format", "seed", "fps")}
    assert found == {"strokes": 11, "num_frames": 5, "format": ["sheet"], "seed": 2, "fps": 30}
    repeated = paintproc("generate", "-i", small_file, "--config", "small-process/sequence.json", "-o", "again")
    assert repeated.returncode == 0, repeated.stderr
    assert tree(small_file.parent / "again") == tree(small_file.parent / "small-process")


BAD = {
    "no input": ((), 2, "--image"),
    "missing": (("-i", "nowhere.jpg"), 3, "does not exist"),
    "empty": (("-i", "empty.png"), 3, "empty"),
    "text": (("-i", "text.png"), 3, "not an image"),
    "empty folder": (("-i", "hollow"), 3, "without images"),
    "missing list": (("--images-from", "nowhere.txt"), 3, "list"),
    "bad size": (("-i", "small.png", "--size", "0"), 2, "--size"),
    "bad format": (("-i", "small.png", "--format", "mov"), 2, "mp4"),
    "bad plan": (("-i", "small.png", "--plan", "wild"), 2, "coarse-to-fine"),
    "missing plan": (("-i", "small.png", "--plan", "none.toml"), 3, "plan none.toml cannot be read"),
    "misspelt plan": (("-i", "small.png", "--plan", "stage.toml"), 2, "unknown setting `lenght`"),
    "plan without stages": (("-i", "small.png", "--plan", "typo.toml"), 2, "no [[stage]]"),
    "bad option": (("-i", "small.png", "--colour"), 2, "--colour"),
    "one frame": (("-i", "small.png", "--num-frames", "1"), 2, "--num-frames"),
    "unknown setting": (("-i", "small.png", "--config", "typo.toml"), 2, "did you mean `strokes`"),
    "wrong type": (("-i", "small.png", "--config", "type.toml"), 2, "wrong type"),
    "broken settings": (("-i", "small.png", "--config", "text.png"), 3, "not a settings file"),
    "canvas of a batch": (("-i", "small.png", "-i", "small.png", "--canvas", "small.png"), 2, "--canvas"),
    "output below a file": (("-i", "small.png", "-o", "text.png/x"), 7, "cannot be written"),
    "empty name": (("-i", ""), 2, "--image is empty"),
    "current folder": (("-i", "small.png", "-o", "."), 7, "not a sequence folder"),
    "output like a video": (("-i", "small.png", "-o", "out.mp4"), 2, "--format mp4 writes process.mp4"),
    "output like a photograph": (("-i", "small.png", "-o", "out.JPG"), 2, "--format frames"),
    "address": (("-i", "https://example.org/a.jpg"), 3, "https://example.org/a.jpg is an address"),
    "dry run of nothing": (("-i", "nowhere.jpg", "--dry-run"), 3, "does not exist"),
    "long name": (("-i", "x" * 300), 3, "too long"),
    "long output": (("-i", "small.png", "-o", "x" * 300), 7, "too long"),
    "stdin twice": (("-i", "-", "--canvas", "-"), 2, "once only"),
    "settings that are a list": (("-i", "small.png", "--config", "list.json"), 3, "not a settings file"),
    "output where nobody writes": (("-i", "small.png", "-o", "/proc/x"), 7, "cannot be written"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_sentence_and_leaves_nothing(paintproc, small_file, case):
    folder = small_file.parent
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("no picture [at all")
    (folder / "hollow").mkdir()
    (folder / "typo.toml").write_text("stroke = 5\n")
    (folder / "type.toml").write_text('strokes = "many"\n')
    (folder / "stage.toml").write_text('[[stage]]\nname = "a"\nshare = 1.0\nlenght = 0.1\n')
    (folder / "list.json").write_text('{"settings": [1]}')
    before = sorted(folder.rglob("*"))
    arguments, code, words = BAD[case]
    done = paintproc("generate", *arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert "bug" not in done.stderr
    assert done.stdout == ""
    assert sorted(folder.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system can be mounted by root only")
def test_a_full_disk(paintproc, small_file):
    disk = small_file.parent / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"mount is not allowed here: {mounted.stderr.decode().strip()}")
    try:
        done = paintproc("generate", "-i", small_file, "--strokes", 300, "-o", disk / "out")
        assert done.returncode == 7, done.stderr
        assert "disk" in done.stderr
        assert done.stderr.count("\n") == 1
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGHUP, 75)]
)
@pytest.mark.parametrize("delay", [1.0, 2.2])
def test_signals_leave_nothing_half_written(tmp_path, number, code, delay):
    pixels = np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    arguments = ["generate", "-i", "noise.png", "--strokes", "8000", "--duration", "60"]
    process = subprocess.Popen(
        [COMMAND, *arguments], cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    time.sleep(delay)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert [p.name for p in tmp_path.iterdir()] == ["noise.png"]


def test_an_error_after_a_signal_is_not_blamed_on_anything():
    """It may be the signal's doing: a child process that got it too, a compiler that was disturbed."""
    code = """if True:
        import os, signal
        import typer
        from paintproc.cli.options import plain_exits
        from paintproc.errors import InputError
        from paintproc.stopping import listen

        listen()
        try:
            with plain_exits(verbose=False, quiet=False):
                os.kill(os.getpid(), signal.SIGTERM)
                raise InputError("mobile_sam.safetensors does not hold mobile-sam.")
        except typer.Exit as end:
            raise SystemExit(end.exit_code)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (75, 1)
    assert "Stopped by SIGTERM" in done.stderr


def test_a_signal_raises_nothing_into_a_module_that_is_loaded(tmp_path):
    (tmp_path / "loaded.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(0.1)\nprint('whole', flush=True)"
    )
    code = """if True:
        import typer
        from paintproc.cli.options import check_stopped, plain_exits
        from paintproc.stopping import listen
        listen()
        try:
            with plain_exits(verbose=False, quiet=False):
                import loaded
                check_stopped()
        except typer.Exit as end:
            raise SystemExit(end.exit_code)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=30)
    assert (done.returncode, done.stdout) == (75, "whole\n")
    assert "Traceback" not in done.stderr and "Stopped by SIGTERM" in done.stderr


def test_a_closed_pipe_is_no_error(small_file):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [COMMAND, "generate", "-i", small_file, *map(str, QUICK)], stdout=writer, stderr=subprocess.PIPE,
        cwd=small_file.parent,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_standard_streams_that_are_closed_or_full(small_file, tmp_path):
    words = f"{COMMAND} generate -i {small_file} {' '.join(map(str, QUICK))}"
    for shell, code in ((">&-", 0), ("2>&-", 0), ("-o full > /dev/full", 7)):
        done = subprocess.run(f"{words} {shell}", shell=True, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == code, (shell, done.stderr)
        assert "bug" not in done.stderr
    assert subprocess.run(f"{COMMAND} generate -i - <&-", shell=True, cwd=tmp_path).returncode == 3
    strange = os.fsencode(tmp_path) + b"/caf\xe9.png"
    with open(strange, "wb") as file:  # noqa: PTH123
        file.write(small_file.read_bytes())
    done = subprocess.run([COMMAND, "generate", "-i", strange, *map(str, QUICK)], cwd=tmp_path, capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"caf\xe9-process\n")


def test_unfinished_work_of_a_killed_process_is_removed(paintproc, tmp_path, small_file):
    command = [COMMAND, "generate", "-i", small_file, "--duration", "60", "-o", "out"]
    process = subprocess.Popen(command, cwd=tmp_path)
    while not leftovers(tmp_path):
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert leftovers(tmp_path)
    assert paintproc("generate", "-i", small_file, *QUICK, "-o", "out").returncode == 0
    assert not leftovers(tmp_path)


def test_an_output_behind_a_link(paintproc, tmp_path, small_file):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert paintproc("generate", "-i", small_file, *QUICK, "-o", "link").returncode == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "sequence.json").exists()


def test_a_dry_run_does_nothing(paintproc, small_file):
    done = paintproc("generate", "-i", small_file, "--dry-run")
    assert (done.returncode, done.stdout) == (0, "")
    assert "small-process" in done.stderr
    done = paintproc("generate", "-i", small_file, "nowhere.png", "--dry-run", "--json")
    assert done.returncode == 6
    one, other = map(json.loads, done.stdout.splitlines())
    assert one == {"input": str(small_file), "output": "small-process", "dry_run": True}
    assert (other["input"], other["exit_code"]) == ("nowhere.png", 3) and "does not exist" in other["error"]
    assert list(small_file.parent.iterdir()) == [small_file]


def test_an_option_that_does_not_apply_is_said(paintproc, small_file):
    done = paintproc("generate", "-i", small_file, "--dry-run", "--frames-at", "stage", "--num-frames", 5)
    assert done.returncode == 0 and "--num-frames does not apply" in done.stderr
    done = paintproc("generate", "-i", small_file, "--dry-run", "--frames-at", "change", "--num-frames", 5)
    assert done.returncode == 0 and "--num-frames" not in done.stderr


def test_a_folder_is_looked_through(tmp_path, small_file, monkeypatch):
    """As by synth: to the bottom, in one order, without hidden files and what paintproc wrote."""
    monkeypatch.chdir(tmp_path)
    names = ["b.png", "a/c.JPG", "a/b.png", "a.png", "z/y/x.gif", "ä.png"]
    left_out = [".hidden.png", ".git/a.png", "notes.txt", "b-process/frames/000.png", "data/train/x/000.png"]
    for name in (*names, *left_out):
        path = tmp_path / "art" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(small_file.read_bytes())
    (tmp_path / "art" / "b-process" / "sequence.json").touch()
    (tmp_path / "art" / "data" / "dataset.json").touch()
    found, batch = list_inputs(["art"], None, False)
    assert batch and [source.name for source in found] == [
        "art/a.png", "art/a/b.png", "art/a/c.JPG", "art/b.png", "art/z/y/x.gif", "art/ä.png"]  # fmt: skip
    folders = [str(path) for path in _output_folders(found, Path("out"), True)]
    assert folders == [
        "out/a-process", "out/a/b-process", "out/a/c-process", "out/b-process", "out/z/y/x-process", "out/ä-process",
    ]  # fmt: skip
    (tmp_path / "more" / "a").mkdir(parents=True)
    for name in ("more/a/b.png", "art/a/b.jpg"):
        (tmp_path / name).write_bytes(small_file.read_bytes())
    found, _ = list_inputs(["art", "more", "small.png"], None, False)
    assert len({*_output_folders(found, None, True)}) == len(found) == 9, "equal names are told apart"


def test_render(paintproc, small_file):
    paintproc("generate", "-i", small_file, *QUICK)
    strokes = "small-process/strokes.safetensors"
    for name in ("big.png", "big.svg", "big.mp4"):
        done = paintproc("render", strokes, "-o", name, "--size", 201, "--duration", 1)
        assert (done.returncode, done.stdout) == (0, f"{name}\n"), done.stderr
    first = (small_file.parent / "big.png").read_bytes()
    big = Image.open(small_file.parent / "big.png")
    assert max(big.size) == 201
    last = Image.open(small_file.parent / "small-process/frames/003.png")
    error = np.asarray(big.resize(last.size, Image.Resampling.BOX), float) - np.asarray(last, float)
    assert np.abs(error).mean() < 8
    assert count_frames(small_file.parent / "big.mp4") == 30
    again = paintproc("render", strokes, "-o", "big.png", "--size", 201, "--json")
    facts = json.loads(again.stdout)
    assert (facts["input"], facts["output"], facts["width"], facts["strokes"]) == (strokes, "big.png", 201, 30)
    assert (again.returncode, again.stderr) == (0, "big.png is complete already.\n")
    assert paintproc("render", strokes, "-o", "big.png").returncode == 7
    assert paintproc("render", strokes, "-o", "big.png", "--overwrite").returncode == 0
    assert paintproc("render", strokes, "-o", small_file, "--overwrite").returncode == 7
    assert ".tiff, which is not written" in paintproc("render", strokes, "-o", "big.tiff").stderr
    assert "no ending" in paintproc("render", strokes, "-o", "big").stderr
    done = paintproc("render", "small-process", "-o", "of-folder.png", "--size", 201)
    assert (done.returncode, done.stderr) == (0, "")
    assert (small_file.parent / "of-folder.png").read_bytes() == first
    done = paintproc("render", "small-process/frames", "-o", "b.png")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1) and "without strokes.safetensors" in done.stderr
    assert paintproc("render", small_file, "-o", "b.png").returncode == 3
    assert not leftovers(small_file.parent)
