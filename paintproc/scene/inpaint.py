"""What lies behind, made up by a network: MI-GAN (Sargsyan et al. 2023).

It learned from photographs. Small holes in a painting it fills well; of a large one it makes
boats and roofs (docs/scene.md), so those are left to the built-in fill.
"""

from pathlib import Path

import numpy as np

from paintproc.scene.layers import fill
from paintproc.scene.running import open_graph

LARGEST_HOLE = 0.3
"""Part of the picture that may be missing."""


def fill_with_migan(picture: np.ndarray, known: np.ndarray, file: Path) -> np.ndarray:
    """Carry what is known (1) into what is not (0): float32 sRGB [h, w, 3] in 0..1, as `fill` does."""
    if known.mean() < 1 - LARGEST_HOLE or known.all():
        return fill(picture, known)
    pixels = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8).transpose(2, 0, 1)[None]
    mask = ((known > 0.5) * np.uint8(255))[None, None]
    found = open_graph(file).run(None, {"image": np.ascontiguousarray(pixels), "mask": mask})[0][0]
    made_up = found.transpose(1, 2, 0).astype(np.float32) / 255
    return np.where(known[..., None] > 0.5, picture, made_up).astype(np.float32)
