"""The scene of a picture: regions and their order, from the picture alone or with what networks saw."""

import cv2
import numpy as np

from paintproc.scene.order import attraction, nearness
from paintproc.scene.regions import enlarge, features, merge, pieces, superpixels, things
from paintproc.scene.values import Observation, Scene

WORKING_SIDE = 224


def find_scene(picture: np.ndarray, observation: Observation | None = None) -> Scene:
    """The scene of `picture`, uint8 sRGB [H, W, 3]; works on 224 pixels, answers at full size.

    `observation` is what networks saw in it (`scene/networks.py`): masks keep the pieces of one thing
    together and apart from others, depth moves the order.
    """
    height, width = picture.shape[:2]
    scale = min(1.0, WORKING_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    method = "builtin" if observation is None else observation.method
    if min(size) < 8:
        flat = np.zeros((height, width), np.int32)
        return Scene(flat, flat, np.zeros(1), np.ones(1), method)
    lab, edges, texture = features(small)
    masks, quality = _masks(observation, size)
    parts, region_of = merge(pieces(superpixels(lab), masks), lab, edges, texture, masks, quality)
    depth = None if observation is None or observation.depth is None else cv2.resize(observation.depth, size)
    standing = masks[things(masks, quality)].any(0) if len(masks) else None
    near = nearness(region_of[parts], lab, texture, standing, depth, 0.0 if observation is None else observation.trust)
    order = np.argsort(near, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    region_of = rank[region_of].astype(np.int32)
    near = near[order]
    spread = (near - near[0]) / max(float(near[-1] - near[0]), 1e-9)
    weight = attraction(region_of[parts], lab, texture)
    parts = enlarge(parts, height, width)
    return Scene(region_of[parts], parts, spread, weight, method)


def _masks(observation: Observation | None, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Masks [K, h, w] at the working size and their quality [K]; none that is nothing or everything."""
    if observation is None or not len(observation.masks):
        return np.zeros((0, size[1], size[0]), bool), np.zeros(0)
    masks = np.stack(
        [cv2.resize(m.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.5 for m in observation.masks]
    )
    covered = masks.mean((1, 2))
    useful = (covered > 0.0015) & (covered < 0.92)
    return masks[useful], observation.quality[useful]
