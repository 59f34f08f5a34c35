"""Regions of a picture: superpixels, merged.

Superpixels (SLIC) are merged two by two, the cheapest pair first: a pair is cheap when its
colors and textures are near, no edge runs along its border, the border is long and one of
the two is small. Masks of a segmenter (Segment Anything: Kirillov et al. 2023) overlap and nest;
they enter the price: a mask that holds one of a pair and not the other keeps them apart, a mask
that holds both, a head and a coat in a figure, brings them together, whatever parts it.
"""

import cv2
import numpy as np

SUPERPIXELS = 450
MOST_REGIONS, MOST_WITH_MASKS, FEWEST_REGIONS = 10, 12, 5
PARTS = 40
SEPARATE = 24.0
"""Merging ends at a price above this, once there are no more regions than the most."""
APART, MOST_APART, TOGETHER = 45.0, 1.6, 0.75
"""What one mask between two pieces costs (Lab units), how many count, what a mask around both saves."""
WHOLE, LARGEST_THING, SURE = 0.95, 0.4, 0.4
"""What being parts of one thing saves in the end; part of the picture and quality of a thing's mask."""
SMALLEST_PIECE = 24


def features(small: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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


def superpixels(lab: np.ndarray) -> np.ndarray:
    """SLIC superpixels [h, w], numbered from 0."""
    from skimage.segmentation import slic

    return _numbered(slic(lab, SUPERPIXELS, compactness=0.06, convert2lab=False, start_label=0))


def pieces(labels: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Superpixels cut along the masks [K, h, w]; what is too small joins what is nearest."""
    if not len(masks):
        return labels
    from scipy.ndimage import distance_transform_edt
    from skimage.measure import label

    held = np.unique(masks.reshape(len(masks), -1), axis=1, return_inverse=True)[1].reshape(labels.shape)
    cut = label(held * (labels.max() + 1) + labels + 1, connectivity=1)
    small = np.bincount(cut.ravel())[cut] < SMALLEST_PIECE
    if small.all():
        return labels
    y, x = distance_transform_edt(small, return_distances=False, return_indices=True)
    return _numbered(cut[y, x])


def merge(
    labels: np.ndarray,
    lab: np.ndarray,
    edges: np.ndarray,
    texture: np.ndarray,
    masks: np.ndarray,
    quality: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Merge pieces; return parts [h, w] and the region of each part."""
    count, flat = int(labels.max()) + 1, labels.ravel()
    area = np.bincount(flat, minlength=count).astype(float)
    values = np.dstack([lab, 1.5 * texture]).reshape(-1, 4)
    sums = np.stack([np.bincount(flat, values[:, k], minlength=count) for k in range(4)], 1)
    held = np.zeros((count, len(masks)))
    for k, mask in enumerate(masks):
        held[:, k] = np.bincount(flat, mask.ravel(), minlength=count)
    # a mask of most of the picture says little of what it holds
    bond = TOGETHER * quality * (1 - np.minimum(1, masks.mean((1, 2)) / 0.6)) if len(masks) else quality
    whole = WHOLE * things(masks, quality)
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
    left = count

    def price(i: int) -> np.ndarray:
        touching = (border[i] > 0) & alive
        means, mean = sums / area[:, None], sums[i] / area[i]
        unlike = np.sqrt(((means - mean) ** 2).sum(1)) + 1.2 * strength[i] / np.maximum(border[i], 1)
        if len(masks):
            share = held / area[:, None]
            apart = np.minimum((np.abs(share - share[i]) * quality).sum(1), MOST_APART)
            tie = bond if left > PARTS else np.maximum(bond, whole)
            unlike = (unlike + APART * apart) * (1 - (tie * share * share[i]).max(1))
        smaller = np.minimum(area, area[i]) / total
        embrace = border[i] / np.maximum(np.minimum(border.sum(1), border[i].sum()), 1)
        cost = unlike * smaller**0.3 / (0.35 + embrace) * 3
        cost = np.where(touching, cost, np.inf)
        cost[i] = np.inf
        return cost

    for k in range(count):
        prices[k] = price(k)
    most = MOST_WITH_MASKS if len(masks) else MOST_REGIONS
    parts = owner.copy()
    while left > 1:
        if left == PARTS:
            parts = owner.copy()
            for k in np.flatnonzero(alive).tolist():
                prices[k] = price(k)
        i, j = divmod(int(prices.argmin()), count)
        if left <= FEWEST_REGIONS or (left <= most and prices[i, j] > SEPARATE):
            break
        owner[owner == j] = i
        for tally in (area, sums, held):
            tally[i] += tally[j]
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


def things(masks: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """Which masks are whole things, bool [K]: large, sure, not most of the picture, not inside another such."""
    chosen = np.zeros(len(masks), bool)
    taken = np.zeros(masks.shape[1:], bool)
    area = masks.mean((1, 2)) if len(masks) else np.zeros(0)
    for k in np.argsort(-area, kind="stable"):
        if area[k] <= LARGEST_THING and quality[k] >= SURE and (masks[k] & taken).sum() < 0.15 * masks[k].sum():
            chosen[k] = True
            taken |= masks[k]
    return chosen


def enlarge(parts: np.ndarray, height: int, width: int) -> np.ndarray:
    """The map at full size, with smooth borders: the part whose enlarged mask is strongest."""
    best = np.full((height, width), -1, np.float32)
    result = np.zeros((height, width), np.int32)
    for k in range(int(parts.max()) + 1):
        mask = cv2.resize((parts == k).astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        stronger = mask > best
        best[stronger], result[stronger] = mask[stronger], k
    return result


def _numbered(labels: np.ndarray) -> np.ndarray:
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
