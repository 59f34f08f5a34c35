"""What tests share: small pictures, the command, and larger collections where they are at hand."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
COMMAND = Path(sys.executable).with_name("paintproc")
EXAMPLES = sorted((ROOT / "examples").glob("*.jpg"))


WEIGHTS = os.environ.get("PAINTPROC_WEIGHTS")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--skipped-before", action="store_true", help="only the tests that the last run skipped")


SLOW = ("test_synth_safety.py", "test_stops.py", "test_ray.py")
"""Files that start many processes: `pytest -m "not slow"` leaves them out."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "weights" in getattr(item, "fixturenames", ()):
            item.add_marker("weights")
        if item.path.name in SLOW:
            item.add_marker("slow")
    if config.getoption("--skipped-before"):
        skipped = set(config.cache.get("paintproc/skipped", []))
        chosen = [item for item in items if skipped & {item.nodeid, item.nodeid.partition("::")[0]}]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Keep the names of skipped tests, and of files skipped as a whole."""
    if not config.getoption("--skipped-before"):
        reports = terminalreporter.stats.get("skipped", [])
        config.cache.set("paintproc/skipped", sorted({report.nodeid for report in reports}))


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in list(os.environ):
        if name.startswith("PAINTPROC_") and name != "PAINTPROC_PAINTINGS":
            monkeypatch.delenv(name)
    # what a test sees does not depend on the weights its user has
    monkeypatch.setenv("PAINTPROC_WEIGHTS", str(tmp_path_factory.getbasetemp() / "no-weights"))


@pytest.fixture(scope="session", autouse=True)
def _compiled_kernels() -> None:
    """The kernels are compiled before any command of a test says that it does so."""
    from paintproc.strokes.fit import fit

    fit(np.zeros((8, 8, 3), np.float32), 2)


def workers_of(parent: int) -> list[int]:
    """The worker processes whose parent this process is."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent and "spawn_main" in (stat.parent / "cmdline").read_text():
                found.append(int(stat.parent.name))
        except OSError:
            continue
    return found


@pytest.fixture
def painting() -> np.ndarray:
    """An example at 64 x 48 pixels or so, uint8."""
    image = Image.open(ROOT / "examples" / "still-life.jpg")
    image.thumbnail((64, 64))
    return np.array(image)


@pytest.fixture
def small_file(tmp_path: Path, painting: np.ndarray) -> Path:
    path = tmp_path / "small.png"
    Image.fromarray(painting).save(path)
    return path


@pytest.fixture
def paintproc(tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run the command in a folder of its own, as a user's shell would."""

    def run(*arguments: object, **options: object) -> "subprocess.CompletedProcess[str]":
        settings: dict[str, object] = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 120}
        return subprocess.run([COMMAND, *map(str, arguments)], **(settings | options))  # type: ignore[call-overload]

    return run


@pytest.fixture
def paintings() -> Path:
    """A folder with `famous/` and `bench8/`, named by PAINTPROC_PAINTINGS."""
    folder = os.environ.get("PAINTPROC_PAINTINGS")
    if not folder or not Path(folder).is_dir():
        pytest.skip("PAINTPROC_PAINTINGS does not name a folder of paintings")
    return Path(folder)


@pytest.fixture
def weights() -> Callable[[str], Path]:
    """Real weights by name, from the folder named by PAINTPROC_WEIGHTS."""
    from paintproc.weights.manifest import named
    from paintproc.weights.store import state

    def find(name: str) -> Path:
        if not WEIGHTS or state(named(name), Path(WEIGHTS)) != "here":
            pytest.skip(f"PAINTPROC_WEIGHTS names no folder with {name}: `paintproc weights get {name}`")
        return Path(WEIGHTS)

    return find
