"""Filling what lies behind nearer regions with a network: MI-GAN (Sargsyan et al. 2023).

MI-GAN was trained on photographs. It fills small holes in a painting well. Into large holes it paints objects
that are not there, such as boats and roofs (docs/scene.md), so the built-in `fill` takes large holes.
"""

from pathlib import Path

import numpy as np

from paintproc.scene.layers import fill
from paintproc.scene.running import open_graph

LARGEST_HOLE = 0.3
"""Largest part of the picture that MI-GAN fills; `fill` takes more than this."""


def fill_with_migan(picture: np.ndarray, known: np.ndarray, file: Path) -> np.ndarray:
    """Fill the pixels of `picture`, float32 sRGB [h, w, 3] in [0, 1], where `known` [h, w] is 0.

    Takes and returns the same as `fill`. `file` is MI-GAN's ONNX graph.
    """
    if known.mean() < 1 - LARGEST_HOLE or known.all():
        return fill(picture, known)
    pixels = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8).transpose(2, 0, 1)[None]
    mask = ((known > 0.5) * np.uint8(255))[None, None]
    output = open_graph(file).run(None, {"image": np.ascontiguousarray(pixels), "mask": mask})[0][0]
    filled = output.transpose(1, 2, 0).astype(np.float32) / 255
    return np.where(known[..., None] > 0.5, picture, filled).astype(np.float32)
