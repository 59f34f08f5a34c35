"""Which region is farther, and where the eye goes.

The order comes from cues that hold in most pictures: what touches the upper and side edges, is
large or lies high is far; what is enclosed, bulges into its neighbor (Fowlkes, Martin and Malik
2007: size, lower region and convexity of figure and ground), is sharp or lies low is near.
"""

import cv2
import numpy as np

BEFORE = 0.6
"""How much it counts for a thing that its neighbor is none."""
DEPTH, TAKEN = 3.0, 0.7
"""How much a trusted depth counts, and how much of a region's own cues it takes the place of."""


def nearness(
    regions: np.ndarray,
    lab: np.ndarray,
    texture: np.ndarray,
    things: np.ndarray | None = None,
    depth: np.ndarray | None = None,
    trust: float = 0.0,
) -> np.ndarray:
    """A number a region, larger for nearer, from its own cues and from pairs of neighbors.

    `things` [h, w] is where things stand before what is around them; `depth` [h, w], 0 far to 1
    near, takes the place of the own cues as far as it has `trust`, 0 to 1: the median of each
    region counts, its rims do not.
    """
    count = int(regions.max()) + 1
    height, width = regions.shape
    y = np.mgrid[:height, :width][0]
    own = np.zeros(count)
    pull, margin = np.zeros((count, count)), np.zeros((count, count))
    inside = [regions == k for k in range(count)]
    thing = np.zeros(count)
    if things is not None:
        # what runs from side to side is a sky, a floor, a table: no thing
        across = np.array([bool(mask[:, 0].any() and mask[:, -1].any()) for mask in inside])
        thing = np.array([float(things[mask].mean() > 0.5) for mask in inside]) * ~across
    for k, mask in enumerate(inside):
        rows = y[mask]
        low, middle, high = np.quantile(rows, 0.97) / height, rows.mean() / height, np.quantile(rows, 0.03) / height
        top, sides, bottom = mask[0].mean(), (mask[:, 0].mean() + mask[:, -1].mean()) / 2, mask[-1].mean()
        own[k] = 0.9 * low + 0.5 * middle + 0.3 * high - 1.0 * top - 0.7 * sides + 0.15 * bottom
        own[k] += 0.04 * texture[mask].mean() - 0.5 * np.sqrt(mask.mean())
        if depth is not None:
            inner = cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=1).astype(bool)
            middle = float(np.median(depth[inner if inner.any() else mask]))
            own[k] = (1 - TAKEN * trust) * own[k] + DEPTH * trust * middle
    bulge = [cv2.blur(mask.astype(np.float32), (15, 15)) for mask in inside]
    for i in range(count):
        ring = cv2.dilate(inside[i].astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~inside[i]
        for j in range(count):
            shared = ring & inside[j]
            length = int(shared.sum())
            if i == j or length < 4:
                continue
            # where i fills less of the neighborhood of the border than j does, i bulges into j
            convex = float((bulge[j][shared] - bulge[i][shared]).mean())
            enclosed = length / max(int(ring.sum()), 1)
            pull[i, j] += length
            margin[i, j] += length * (1.6 * convex + 0.8 * enclosed + BEFORE * max(0.0, thing[i] - thing[j]))
    weight = (pull + pull.T) / max(pull.sum(), 1) * count
    wanted = (margin - margin.T) / np.maximum(pull + pull.T, 1) * 2
    system = np.diag(weight.sum(1)) - weight + np.eye(count)
    return np.linalg.solve(system, own + (weight * wanted).sum(1))


def attraction(regions: np.ndarray, lab: np.ndarray, texture: np.ndarray) -> np.ndarray:
    """How much the eye goes to each region: contrast to the picture, detail, being inside it."""
    height, width = regions.shape
    y, x = np.mgrid[:height, :width]
    center = np.exp(-(((x / width - 0.5) / 0.3) ** 2 + ((y / height - 0.45) / 0.35) ** 2))
    unlike = np.sqrt(((lab - np.median(lab.reshape(-1, 3), 0)) ** 2).sum(2))
    around = np.ones((height, width))
    around[2:-2, 2:-2] = 0
    found = []
    for k in range(int(regions.max()) + 1):
        mask = regions == k
        framed = around[mask].sum() / np.sqrt(mask.sum())
        found.append(center[mask].mean() * (unlike[mask].mean() + 6 * texture[mask].mean()) / (1 + framed))
    weight = np.array(found)
    return weight / max(float(weight.max()), 1e-9)
