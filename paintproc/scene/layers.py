"""What lies behind: each region's surroundings carried on under everything nearer."""

from collections.abc import Callable

import cv2
import numpy as np

from paintproc.scene.values import Scene

LAYER_SIDE = 160
"""Layers are filled at this size: block-in strokes are far larger than its pixels."""

Filler = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Makes up what is not known: float32 [h, w, 3] and [h, w] (1 known, 0 not) to [h, w, 3]."""


def fill(picture: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Carry what is known (1) into what is not (0), float32: push and pull over a pyramid.

    Gortler et al. 1996, "The lumigraph", section 3.4.
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
    """For each region k the picture as it stands when regions 0 to k are painted.

    float32 [h, w, 3] at `LAYER_SIDE`. Each region runs on for `behind` (canvas units) under what is
    nearer, filled in from the regions that are there, so that nothing nearer shows; beyond that
    the canvas is as the layer before left it, at first `under` (a color [3] or a canvas [H, W, 3]).
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
            # pixels at the border hold a bit of the nearer region: they are not trusted
            inner = cv2.erode(known, np.ones((5, 5), np.uint8), borderValue=1)
            known = np.asarray(inner, np.uint8) if inner.any() else known
        filled = filler(small, known.astype(np.float32))
        own = cv2.dilate((regions == k).astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
        painted = cv2.GaussianBlur((own * (regions >= k)).astype(np.float32), (0, 0), 1.5)[..., None]
        painted = np.where((regions <= k)[..., None], np.float32(1), painted)
        layer = (painted * filled + (1 - painted) * layer).astype(np.float32)
        layers.append(layer)
    return layers
