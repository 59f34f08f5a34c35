"""The order of regions from far to near, and how much each attracts the eye.

The order comes from cues that hold in most pictures. A region is probably far if it touches the upper and side
edges, is large or lies high. It is probably near if it is enclosed by a neighbor, bulges into a neighbor, is sharp
or lies low (Fowlkes, Martin and Malik 2007: size, lower region and convexity of figure and ground).
"""

import cv2
import numpy as np

OBJECT_BONUS = 0.6
"""Bonus for placing a segmented object in front of a neighbor that is not an object."""
DEPTH_WEIGHT = 3.0
"""Weight of a fully trusted depth (0 far to 1 near) in a region's nearness."""
DEPTH_REPLACES = 0.7
"""Part of a region's own cues that a fully trusted depth replaces."""


def nearness(
    regions: np.ndarray,
    lab: np.ndarray,
    texture: np.ndarray,
    objects: np.ndarray | None = None,
    depth: np.ndarray | None = None,
    trust: float = 0.0,
) -> np.ndarray:
    """One number for each region, [R]; a larger number is nearer.

    A region's own cues are its place, size, texture and contact with the edges. Pairs of neighbors add which of the
    two bulges into or is enclosed by the other. The result is the least-squares agreement of both.
    `objects`, bool [h, w], marks the pixels of segmented objects, which lie in front of their surroundings.
    `depth` [h, w], 0 far to 1 near, replaces part of the own cues; `trust`, 0 to 1, says how much. The median depth
    inside a region counts; the pixels at its border are left out.
    """
    count = int(regions.max()) + 1
    height, width = regions.shape
    y = np.mgrid[:height, :width][0]
    own = np.zeros(count)
    shared_length, margin = np.zeros((count, count)), np.zeros((count, count))
    inside = [regions == k for k in range(count)]
    is_object = np.zeros(count)
    if objects is not None:
        # a region from the left edge to the right one is a sky, a floor or a table, not an object
        across = np.array([bool(mask[:, 0].any() and mask[:, -1].any()) for mask in inside])
        is_object = np.array([float(objects[mask].mean() > 0.5) for mask in inside]) * ~across
    for k, mask in enumerate(inside):
        rows = y[mask]
        low, middle, high = np.quantile(rows, 0.97) / height, rows.mean() / height, np.quantile(rows, 0.03) / height
        top, sides, bottom = mask[0].mean(), (mask[:, 0].mean() + mask[:, -1].mean()) / 2, mask[-1].mean()
        own[k] = 0.9 * low + 0.5 * middle + 0.3 * high - 1.0 * top - 0.7 * sides + 0.15 * bottom
        own[k] += 0.04 * texture[mask].mean() - 0.5 * np.sqrt(mask.mean())
        if depth is not None:
            inner = cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=1).astype(bool)
            middle = float(np.median(depth[inner if inner.any() else mask]))
            own[k] = (1 - DEPTH_REPLACES * trust) * own[k] + DEPTH_WEIGHT * trust * middle
    filled = [cv2.blur(mask.astype(np.float32), (15, 15)) for mask in inside]
    for i in range(count):
        ring = cv2.dilate(inside[i].astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~inside[i]
        for j in range(count):
            shared = ring & inside[j]
            length = int(shared.sum())
            if i == j or length < 4:
                continue
            # around the border of a disc lies less of the disc than of what is outside: the disc bulges
            convex = float((filled[j][shared] - filled[i][shared]).mean())
            enclosed = length / max(int(ring.sum()), 1)
            shared_length[i, j] += length
            bonus = OBJECT_BONUS * max(0.0, is_object[i] - is_object[j])
            margin[i, j] += length * (1.6 * convex + 0.8 * enclosed + bonus)
    border = shared_length + shared_length.T
    weight = border / max(shared_length.sum(), 1) * count
    wanted = (margin - margin.T) / np.maximum(border, 1) * 2
    system = np.diag(weight.sum(1)) - weight + np.eye(count)
    return np.linalg.solve(system, own + (weight * wanted).sum(1))


def attraction(regions: np.ndarray, lab: np.ndarray, texture: np.ndarray) -> np.ndarray:
    """How much each region attracts the eye, [R], 0 to 1: by contrast, detail and a place near the center."""
    height, width = regions.shape
    y, x = np.mgrid[:height, :width]
    center = np.exp(-(((x / width - 0.5) / 0.3) ** 2 + ((y / height - 0.45) / 0.35) ** 2))
    contrast = np.sqrt(((lab - np.median(lab.reshape(-1, 3), 0)) ** 2).sum(2))
    frame = np.ones((height, width))
    frame[2:-2, 2:-2] = 0
    found = []
    for k in range(int(regions.max()) + 1):
        mask = regions == k
        at_edge = frame[mask].sum() / np.sqrt(mask.sum())
        found.append(center[mask].mean() * (contrast[mask].mean() + 6 * texture[mask].mean()) / (1 + at_edge))
    weight = np.array(found)
    return weight / max(float(weight.max()), 1e-9)
