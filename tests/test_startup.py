"""What the command line imports, and how much work `--help` is."""

import subprocess
import sys

import pytest
from conftest import COMMAND, ROOT

HEAVY = ("numpy", "PIL", "cv2", "numba", "scipy", "skimage", "torch", "diffusers", "imageio_ffmpeg", "rich.progress",
         "ray")  # fmt: skip
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


def cpu_seconds(*command: object) -> float:
    """Processor time of a command, the least of three runs: wall-clock time says little on a busy machine."""
    resource = pytest.importorskip("resource")
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert "Usage: paintproc" in done.stdout or command[0] == sys.executable
    return min(taken)


@pytest.fixture(scope="module")
def bound() -> float:
    """What `--help` may take: three times what that of a command with one option takes."""
    return 3 * cpu_seconds(sys.executable, "-c", "import typer\ndef f(n: int = 1): pass\ntyper.run(f)", "--help")


@pytest.mark.parametrize("words", COMMANDS[::2], ids=lambda words: " ".join(words) or "paintproc")
def test_help_is_fast(words, bound):
    assert cpu_seconds(COMMAND, *words, "--help") < bound


def test_a_slow_help_is_noticed(bound):
    code = "import paintproc.strokes.ops.kernels; from paintproc.cli import main; main()"
    assert cpu_seconds(sys.executable, "-c", code, "generate", "--help") > bound


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
    assert run_rasterize(environment).returncode == 0
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.nbc")} == kept


@pytest.mark.parametrize(
    ("name", "value"),
    [("HOME", "/proc/nowhere"), ("HOME", "/dev/null"), ("XDG_CACHE_HOME", "~nobody-of-this-name")],
)
def test_kernels_are_kept_elsewhere_where_the_home_is_of_no_use(tmp_path, monkeypatch, name, value):
    from paintproc.strokes.ops.compiling import cache_folder

    monkeypatch.chdir(tmp_path)  # an empty name is this folder
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    for variable in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, "")
    monkeypatch.setenv(name, value)
    assert cache_folder().is_relative_to(tmp_path)
