"""Layers: the picture as it stands when regions 0 to k are painted and nothing nearer is.

What lies behind the nearer regions is not in the picture. It is filled in from the regions around it.
"""

from collections.abc import Callable

import cv2
import numpy as np

from paintproc.scene.values import Scene

LAYER_SIDE = 160
"""Longer side of a layer in pixels. Layers only guide block-in strokes, which are far larger than these pixels."""

Filler = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Fills unknown pixels: takes a picture, float32 [h, w, 3], and which pixels are known, float32 [h, w] (1 known,
0 unknown); returns the filled picture, float32 [h, w, 3]."""


def fill(picture: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Fill the pixels of `picture`, float32 [h, w, 3], where `known` [h, w] is 0, from those where it is 1.

    Push and pull over an image pyramid: Gortler et al. 1996, "The lumigraph", section 3.4.
    """
    levels = [(picture * known[..., None], known)]
    while max(levels[-1][1].shape) > 2:
        color, weight = levels[-1]
        size = max(1, (weight.shape[1] + 1) // 2), max(1, (weight.shape[0] + 1) // 2)
        levels.append(tuple(cv2.resize(a, size, interpolation=cv2.INTER_AREA) for a in (color, weight)))  # type: ignore[arg-type]
    color, weight = levels[-1]
    result = color / np.maximum(weight, 1e-6)[..., None]
    for color, weight in levels[-2::-1]:
        larger = cv2.resize(result, weight.shape[::-1], interpolation=cv2.INTER_LINEAR)
        trust = np.minimum(1, 2 * weight)[..., None]
        result = trust * color / np.maximum(weight, 1e-6)[..., None] + (1 - trust) * larger
    return result.astype(np.float32)


def find_layers(
    picture: np.ndarray, scene: Scene, under: np.ndarray, behind: float, filler: Filler = fill
) -> list[np.ndarray]:
    """One layer for each region k: the picture as it stands when regions 0 to k are painted.

    A layer is float32 [h, w, 3] with `LAYER_SIDE` as its longer side. Region k extends by `behind` (canvas units)
    under the nearer regions; there it is filled from regions 0 to k, so no color of a nearer region shows. The
    rest is the layer before, and below the first layer `under`: a color [3] or a canvas [H, W, 3].
    """
    height, width = picture.shape[:2]
    scale = min(1.0, LAYER_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.asarray(cv2.resize(np.ascontiguousarray(picture, np.float32), size, interpolation=cv2.INTER_AREA))
    regions = cv2.resize(scene.regions.astype(np.float32), size, interpolation=cv2.INTER_NEAREST).astype(int)
    ground = np.asarray(cv2.resize(under, size, interpolation=cv2.INTER_AREA)) if under.ndim == 3 else under
    layer = np.broadcast_to(ground, small.shape).astype(np.float32)
    reach = 2 * max(2, round(behind * max(size))) + 1
    layers = []
    for k in range(len(scene)):
        known = (regions <= k).astype(np.uint8)
        if k < len(scene) - 1:
            # pixels at the border mix in the color of the nearer region: treat them as unknown
            inner = cv2.erode(known, np.ones((5, 5), np.uint8), borderValue=1)
            known = np.asarray(inner, np.uint8) if inner.any() else known
        filled = filler(small, known.astype(np.float32))
        own = cv2.dilate((regions == k).astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
        painted = cv2.GaussianBlur((own * (regions >= k)).astype(np.float32), (0, 0), 1.5)[..., None]
        painted = np.where((regions <= k)[..., None], np.float32(1), painted)
        layer = (painted * filled + (1 - painted) * layer).astype(np.float32)
        layers.append(layer)
    return layers
