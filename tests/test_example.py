"""The example of training through the stroke op runs, and learns."""

import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

pytest.importorskip("torch", reason="torch is not installed: pip install 'paintproc[models]'")


def test_a_picture_is_painted_in_pytorch(tmp_path):
    from paintproc.strokes.values import load_strokes

    command = [sys.executable, ROOT / "examples" / "fit_with_torch.py", tmp_path / "out", "12"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'out' / 'picture.png'}\n"
    losses = [float(loss) for loss in re.findall(r"loss ([0-9.]+)", done.stderr)]
    assert losses[-1] < 0.8 * losses[0]
    assert len(load_strokes(tmp_path / "out" / "strokes.safetensors")) == 800
    picture = np.array(Image.open(tmp_path / "out" / "picture.png"))
    assert picture.std() > 20
