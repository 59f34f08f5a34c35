"""What the command line imports, and how long people wait for it."""

import subprocess
import sys
import time

import pytest
from conftest import COMMAND, ROOT

HEAVY = ("numpy", "PIL", "cv2", "numba", "scipy", "skimage", "torch", "diffusers", "imageio_ffmpeg", "rich.progress")
COMMANDS = ([], ["generate"], ["synth"], ["synth", "strokes"], ["render"], ["weights"], ["weights", "get"], ["doctor"])


def imported_by(statement: str) -> set[str]:
    code = f"import sys\ntry:\n    {statement}\nexcept SystemExit: pass\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words) or "paintproc")
def test_help_imports_nothing_heavy(words):
    loaded = imported_by(f"sys.argv = ['paintproc', *{words!r}, '--help']; from paintproc.cli import main; main()")
    assert "paintproc.cli" in loaded
    assert not loaded & set(HEAVY)


def test_the_import_check_can_fail():
    assert "numpy" in imported_by("import paintproc.strokes.values")


def test_painting_never_imports_torch(tmp_path):
    statement = (
        "import numpy, paintproc; s = paintproc.generate(numpy.zeros((20, 20, 3), 'uint8')); "
        f"paintproc.save_sequence(s, {str(tmp_path / 'a')!r})"
    )
    loaded = imported_by(statement)
    assert "paintproc.process.folder" in loaded
    assert not loaded & {"torch", "torchvision", "diffusers", "transformers"}


def test_import_paintproc_is_light():
    assert not imported_by("import paintproc") & {*HEAVY, "typer", "rich"}


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words) or "paintproc")
def test_help_is_fast(words):
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        done = subprocess.run([COMMAND, *words, "--help"], capture_output=True, text=True, check=True)
        times.append(time.perf_counter() - begun)
    assert "Usage: paintproc" in done.stdout
    assert min(times) < 0.4


def test_every_public_name_resolves():
    import paintproc

    assert all(getattr(paintproc, name) is not None for name in paintproc.__all__)
    with pytest.raises(AttributeError):
        paintproc.nothing_like_this  # noqa: B018


def run_rasterize(environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    code = (
        "import numpy as np, paintproc, sys\n"
        "p = paintproc.rasterize(paintproc.Strokes(points=np.full((1, 3, 2), .5), radius=np.full((1, 2), .2),"
        " color=np.zeros((1, 2, 3)), alpha=np.ones((1, 2))), size=(32, 32))\n"
        "from paintproc.strokes.ops.compiling import cache_folder\n"
        "print(p.mean() < 1, cache_folder())"
    )
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT, timeout=120
    )


def test_kernels_are_kept_in_the_users_cache_folder(tmp_path):
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin"}
    done = run_rasterize(environment)
    assert done.stdout.split() == ["True", str(tmp_path / ".cache" / "paintproc" / "kernels")], done.stderr
    kept = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.nbc")}
    assert any("composite" in p.name for p in kept)
    begun = time.perf_counter()
    assert run_rasterize(environment).returncode == 0
    assert time.perf_counter() - begun < 4
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.nbc")} == kept


@pytest.mark.parametrize("home", ["/proc/nowhere", "/dev/null", ""])
def test_an_unwritable_home_is_no_obstacle(tmp_path, home):
    done = run_rasterize({"HOME": home, "PATH": "/usr/bin", "TMPDIR": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("True")
