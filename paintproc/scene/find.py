"""`find_scene`: the regions of a picture and their order, with or without the output of networks."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from paintproc.scene.order import attraction, nearness
from paintproc.scene.regions import enlarge, features, load_slic, merge, object_masks, pieces, superpixels
from paintproc.scene.values import Observation, Scene

WORKING_SIDE = 224
"""Regions are found on the picture shrunk to this longer side, in pixels."""


def find_scene(picture: np.ndarray, observation: Observation | None = None) -> Scene:
    """Find the regions of `picture`, uint8 sRGB [H, W, 3], and put them in order from far to near.

    Regions are found on the picture shrunk to 224 pixels and enlarged to its full size. `observation` holds the
    output of networks for this picture (`scene/networks.py`): its masks help to decide which pieces form one
    region, its depth helps to order the regions.
    """
    height, width = picture.shape[:2]
    scale = min(1.0, WORKING_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    method = "builtin" if observation is None else observation.method
    if min(size) < 8:
        flat = np.zeros((height, width), np.int32)
        return Scene(flat, flat, np.zeros(1), np.ones(1), method)
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(features, small)  # OpenCV prepares its tables for Lab while scikit-image is imported
        load_slic()
        lab, edges, texture = found.result()
    masks, quality = _usable_masks(observation, size)
    parts, region_of = merge(pieces(superpixels(lab), masks), lab, edges, texture, masks, quality)
    depth = None if observation is None or observation.depth is None else cv2.resize(observation.depth, size)
    objects = masks[object_masks(masks, quality)].any(0) if len(masks) else None
    trust = 0.0 if observation is None else observation.trust
    near = nearness(region_of[parts], lab, texture, objects, depth, trust)
    order = np.argsort(near, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    region_of = rank[region_of].astype(np.int32)
    near = near[order]
    spread = (near - near[0]) / max(float(near[-1] - near[0]), 1e-9)
    weight = attraction(region_of[parts], lab, texture)
    parts = enlarge(parts, height, width)
    return Scene(region_of[parts], parts, spread, weight, method)


def _usable_masks(observation: Observation | None, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Masks [K, h, w] at the working size and their quality [K], without masks that are nearly empty or nearly full."""
    if observation is None or not len(observation.masks):
        return np.zeros((0, size[1], size[0]), bool), np.zeros(0)
    masks = np.stack(
        [cv2.resize(m.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.5 for m in observation.masks]
    )
    covered = masks.mean((1, 2))
    useful = (covered > 0.0015) & (covered < 0.92)
    return masks[useful], observation.quality[useful]
