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


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("PAINTPROC_") and name != "PAINTPROC_PAINTINGS":
            monkeypatch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def _compiled_kernels() -> None:
    """The kernels are compiled before any command of a test says that it does so."""
    from paintproc.strokes.fit import fit

    fit(np.zeros((8, 8, 3), np.float32), 2)


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
