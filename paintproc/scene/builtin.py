"""Regions and their order from the picture alone: superpixels, merged, then put far to near.

Superpixels (SLIC) are merged two by two, the cheapest pair first: a pair is cheap when its
colors and textures are near, no edge runs along its border, the border is long and one of
the two is small. The order comes from cues that hold in most pictures: what touches the
upper and side edges, is large or lies high is far; what is enclosed, bulges into its
neighbor (Fowlkes, Martin and Malik 2007: size, lower region and convexity of figure and
ground), is sharp or lies low is near.
"""

import cv2
import numpy as np

from paintproc.scene.values import Scene

WORKING_SIDE = 224
SUPERPIXELS = 450
MOST_REGIONS, FEWEST_REGIONS = 10, 5
PARTS = 40
SEPARATE = 24.0
"""Merging ends at a price above this, once there are at most `MOST_REGIONS`."""


def find_scene(picture: np.ndarray) -> Scene:
    """The scene of `picture`, uint8 sRGB [H, W, 3]; works on 224 pixels, answers at full size."""
    height, width = picture.shape[:2]
    scale = min(1.0, WORKING_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    if min(size) < 8:
        flat = np.zeros((height, width), np.int32)
        return Scene(flat, flat, np.zeros(1), np.ones(1), "builtin")
    lab, edges, texture = _features(small)
    parts, region_of = _merge(_superpixels(lab), lab, edges, texture)
    near = _nearness(region_of[parts], lab, texture)
    order = np.argsort(near, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    region_of = rank[region_of].astype(np.int32)
    near = near[order]
    depth = (near - near[0]) / max(float(near[-1] - near[0]), 1e-9)
    weight = _attraction(region_of[parts], lab, texture)
    parts = _enlarge(parts, height, width)
    return Scene(region_of[parts], parts, depth, weight, "builtin")


def _features(small: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Smoothed Lab [h, w, 3], edge strength [h, w], texture [h, w], all in Lab units."""
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    smooth = cv2.bilateralFilter(cv2.GaussianBlur(lab, (0, 0), 1.0), 9, 18, 6)
    edges = np.zeros(lab.shape[:2], np.float32)
    for channel in cv2.split(smooth):
        edges += cv2.Sobel(channel, cv2.CV_32F, 1, 0, scale=1 / 4) ** 2
        edges += cv2.Sobel(channel, cv2.CV_32F, 0, 1, scale=1 / 4) ** 2
    fine = lab[..., 0] - cv2.GaussianBlur(lab[..., 0], (0, 0), 2.0)
    texture = np.sqrt(cv2.GaussianBlur(fine * fine, (0, 0), 4.0))
    return smooth, np.sqrt(edges), texture


def _superpixels(lab: np.ndarray) -> np.ndarray:
    """SLIC superpixels [h, w], numbered from 0."""
    from skimage.segmentation import slic

    labels = slic(lab, SUPERPIXELS, compactness=0.06, convert2lab=False, start_label=0, enforce_connectivity=True)
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape)


def _merge(
    labels: np.ndarray, lab: np.ndarray, edges: np.ndarray, texture: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Merge superpixels; return parts [h, w] and the region of each part."""
    count = int(labels.max()) + 1
    area = np.bincount(labels.ravel(), minlength=count).astype(float)
    values = np.dstack([lab, 1.5 * texture]).reshape(-1, 4)
    sums = np.stack([np.bincount(labels.ravel(), values[:, k], minlength=count) for k in range(4)], 1)
    border, strength = np.zeros((count, count)), np.zeros((count, count))
    for a, b, e in (
        (labels[:, :-1], labels[:, 1:], np.maximum(edges[:, :-1], edges[:, 1:])),
        (labels[:-1], labels[1:], np.maximum(edges[:-1], edges[1:])),
    ):
        across = a != b
        np.add.at(border, (a[across], b[across]), 1)
        np.add.at(strength, (a[across], b[across]), e[across])
    border, strength = border + border.T, strength + strength.T
    total = area.sum()
    alive = np.ones(count, bool)
    owner = np.arange(count)
    prices = np.full((count, count), np.inf)

    def price(i: int) -> np.ndarray:
        touching = (border[i] > 0) & alive
        means, mean = sums / area[:, None], sums[i] / area[i]
        color = np.sqrt(((means - mean) ** 2).sum(1))
        edge = strength[i] / np.maximum(border[i], 1)
        smaller = np.minimum(area, area[i]) / total
        embrace = border[i] / np.maximum(np.minimum(border.sum(1), border[i].sum()), 1)
        cost = (color + 1.2 * edge) * smaller**0.3 / (0.35 + embrace) * 3
        cost = np.where(touching, cost, np.inf)
        cost[i] = np.inf
        return cost

    for i in range(count):
        prices[i] = price(i)
    left = count
    parts = owner.copy()
    while left > 1:
        i, j = divmod(int(prices.argmin()), count)
        if left <= PARTS < left + 1:
            parts = owner.copy()
        if left <= FEWEST_REGIONS or (left <= MOST_REGIONS and prices[i, j] > SEPARATE):
            break
        owner[owner == j] = i
        area[i] += area[j]
        sums[i] += sums[j]
        for matrix in (border, strength):
            matrix[i] += matrix[j]
            matrix[:, i] += matrix[:, j]
            matrix[j] = matrix[:, j] = 0
            matrix[i, i] = 0
        alive[j] = False
        prices[j] = prices[:, j] = np.inf
        prices[i] = price(i)
        prices[:, i] = prices[i]
        left -= 1
    if count <= PARTS:
        parts = np.arange(count)
    names, part_of = np.unique(parts, return_inverse=True)
    region_of = np.unique(owner[names], return_inverse=True)[1]
    return part_of[labels].astype(np.int32), region_of.astype(np.int32)


def _nearness(regions: np.ndarray, lab: np.ndarray, texture: np.ndarray) -> np.ndarray:
    """A number a region, larger for nearer, from its own cues and from pairs of neighbors."""
    count = int(regions.max()) + 1
    height, width = regions.shape
    y = np.mgrid[:height, :width][0]
    own = np.zeros(count)
    pull, margin = np.zeros((count, count)), np.zeros((count, count))
    inside = [regions == k for k in range(count)]
    for k, mask in enumerate(inside):
        rows = y[mask]
        low, middle, high = np.quantile(rows, 0.97) / height, rows.mean() / height, np.quantile(rows, 0.03) / height
        top, sides, bottom = mask[0].mean(), (mask[:, 0].mean() + mask[:, -1].mean()) / 2, mask[-1].mean()
        own[k] = 0.9 * low + 0.5 * middle + 0.3 * high - 1.0 * top - 0.7 * sides + 0.15 * bottom
        own[k] += 0.04 * texture[mask].mean() - 0.5 * np.sqrt(mask.mean())
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
            margin[i, j] += length * (1.6 * convex + 0.8 * enclosed)
    weight = (pull + pull.T) / max(pull.sum(), 1) * count
    wanted = (margin - margin.T) / np.maximum(pull + pull.T, 1) * 2
    system = np.diag(weight.sum(1)) - weight + np.eye(count)
    return np.linalg.solve(system, own + (weight * wanted).sum(1))


def _attraction(regions: np.ndarray, lab: np.ndarray, texture: np.ndarray) -> np.ndarray:
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


def _enlarge(parts: np.ndarray, height: int, width: int) -> np.ndarray:
    """The map at full size, with smooth borders: the part whose enlarged mask is strongest."""
    best = np.full((height, width), -1, np.float32)
    result = np.zeros((height, width), np.int32)
    for k in range(int(parts.max()) + 1):
        mask = cv2.resize((parts == k).astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        stronger = mask > best
        best[stronger], result[stronger] = mask[stronger], k
    return result
