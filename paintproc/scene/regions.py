"""Regions of a picture: superpixels (SLIC), merged two by two, the pair with the lowest price first.

The price of a pair is low when the two have similar colors and textures, when no edge runs along their border, when
the border is long, and when one of the two is small.

Masks of a segmenter (Segment Anything: Kirillov et al. 2023) overlap and nest, so they are no regions by themselves.
They change the price instead. A mask that covers one of a pair and not the other raises it. A mask that covers both,
such as the mask of a figure around head and coat, lowers it.
"""

from collections.abc import Callable

import cv2
import numpy as np

SUPERPIXELS = 450
"""Number of superpixels to start from, about."""
MOST_REGIONS = 10
"""Largest number of regions, without masks."""
MOST_WITH_MASKS = 12
"""Largest number of regions, with masks."""
FEWEST_REGIONS = 5
"""Merging always ends at this number of regions."""
PARTS = 40
"""The pieces that are left at this number become the parts; from here on, `OBJECT_DISCOUNT` holds."""
HIGHEST_PRICE = 24.0
"""Merging ends when the lowest price is above this, once the number of regions is allowed."""
MASK_SURCHARGE = 45.0
"""Added to the difference of two pieces (Lab units) when a mask of quality 1 covers one and not the other."""
MOST_SURCHARGES = 1.6
"""The sum of such masks, each weighted by its quality, counts up to this."""
MASK_DISCOUNT = 0.75
"""Part of the difference that a small mask of quality 1 around both pieces takes away."""
OBJECT_DISCOUNT = 0.95
"""Part of the difference that the mask of a whole object around both pieces takes away, from `PARTS` down."""
LARGEST_OBJECT = 0.4
"""Largest part of the picture that the mask of a whole object covers."""
LEAST_QUALITY = 0.4
"""Lowest quality of the mask of a whole object."""
SMALLEST_PIECE = 24
"""Pieces of fewer pixels than this join the nearest larger piece."""


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


def load_slic() -> Callable[..., np.ndarray]:
    """scikit-image's SLIC; its import takes a quarter of a second."""
    from skimage.segmentation import slic

    return slic


def superpixels(lab: np.ndarray) -> np.ndarray:
    """SLIC superpixels of `lab` [h, w, 3]: int [h, w], numbered from 0."""
    return _numbered(load_slic()(lab, SUPERPIXELS, compactness=0.06, convert2lab=False, start_label=0))


def pieces(labels: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Cut superpixels `labels` [h, w] along the borders of `masks` [K, h, w]; number the pieces from 0.

    A piece of fewer than `SMALLEST_PIECE` pixels joins the nearest larger one.
    """
    if not len(masks):
        return labels
    from scipy.ndimage import distance_transform_edt
    from skimage.measure import label

    # pixels covered by the same set of masks get the same number
    mask_set = np.unique(masks.reshape(len(masks), -1), axis=1, return_inverse=True)[1].reshape(labels.shape)
    cut = label(mask_set * (labels.max() + 1) + labels + 1, connectivity=1)
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
    """Merge pieces: parts int32 [h, w], and the region of each part, int32 [P].

    `labels` [h, w] numbers the pieces, `lab`, `edges` and `texture` are from `features`. `masks` [K, h, w] and their
    `quality` [K] may be empty.
    """
    count, flat = int(labels.max()) + 1, labels.ravel()
    area = np.bincount(flat, minlength=count).astype(float)
    values = np.dstack([lab, 1.5 * texture]).reshape(-1, 4)
    sums = np.stack([np.bincount(flat, values[:, k], minlength=count) for k in range(4)], 1)
    covered = np.zeros((count, len(masks)))
    for k, mask in enumerate(masks):
        covered[:, k] = np.bincount(flat, mask.ravel(), minlength=count)
    # a mask of most of the picture says little about which of its pieces belong together
    discount = MASK_DISCOUNT * quality * (1 - np.minimum(1, masks.mean((1, 2)) / 0.6)) if len(masks) else quality
    object_discount = OBJECT_DISCOUNT * object_masks(masks, quality)
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
        """The price of merging piece `i` with every piece, [count]; infinite where they do not touch."""
        touching = (border[i] > 0) & alive
        means, mean = sums / area[:, None], sums[i] / area[i]
        difference = np.sqrt(((means - mean) ** 2).sum(1)) + 1.2 * strength[i] / np.maximum(border[i], 1)
        if len(masks):
            share = covered / area[:, None]
            split = np.minimum((np.abs(share - share[i]) * quality).sum(1), MOST_SURCHARGES)
            saved = discount if left > PARTS else np.maximum(discount, object_discount)
            difference = (difference + MASK_SURCHARGE * split) * (1 - (saved * share * share[i]).max(1))
        smaller = np.minimum(area, area[i]) / total
        contact = border[i] / np.maximum(np.minimum(border.sum(1), border[i].sum()), 1)
        cost = difference * smaller**0.3 / (0.35 + contact) * 3
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
        if left <= FEWEST_REGIONS or (left <= most and prices[i, j] > HIGHEST_PRICE):
            break
        owner[owner == j] = i
        for tally in (area, sums, covered):
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


def object_masks(masks: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """Which masks are whole objects, bool [K].

    A whole object covers at most `LARGEST_OBJECT` of the picture, has at least `LEAST_QUALITY`, and overlaps
    larger whole objects by less than 15 % of its own area.
    """
    chosen = np.zeros(len(masks), bool)
    taken = np.zeros(masks.shape[1:], bool)
    area = masks.mean((1, 2)) if len(masks) else np.zeros(0)
    for k in np.argsort(-area, kind="stable"):
        free = (masks[k] & taken).sum() < 0.15 * masks[k].sum()
        if area[k] <= LARGEST_OBJECT and quality[k] >= LEAST_QUALITY and free:
            chosen[k] = True
            taken |= masks[k]
    return chosen


def enlarge(parts: np.ndarray, height: int, width: int) -> np.ndarray:
    """Enlarge `parts` [h, w] to [height, width] with smooth borders.

    The mask of each part is enlarged linearly; every pixel takes the part with the highest value. Only the box
    around a part is looked at, since its mask is 0 outside.
    """
    best = np.full((height, width), -1, np.float32)
    result = np.zeros((height, width), np.int32)
    y0, y1, fy = _neighbors(parts.shape[0], height)
    x0, x1, fx = _neighbors(parts.shape[1], width)
    for k in range(int(parts.max()) + 1):
        mask = parts == k
        rows, columns = _reached(mask.any(1), y0, y1), _reached(mask.any(0), x0, x1)
        values = mask.astype(np.float32)
        tall = _between(values[y0[rows]], values[y1[rows]], fy[rows, None])
        values = _between(tall[:, x0[columns]], tall[:, x1[columns]], fx[columns])
        here = best[rows, columns]
        stronger = values > here
        np.copyto(here, values, where=stronger)
        np.copyto(result[rows, columns], np.int32(k), where=stronger)
    return result


def _neighbors(count: int, wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of `wanted` pixels in a row the two of `count` pixels it lies between, and how far from the first."""
    place = np.clip((np.arange(wanted) + 0.5) * count / wanted - 0.5, 0, count - 1)
    first = place.astype(int)
    return first, np.minimum(first + 1, count - 1), (place - first).astype(np.float32)


def _reached(present: np.ndarray, first: np.ndarray, second: np.ndarray) -> slice:
    """The run of enlarged pixels that have a neighbor in `present` [n]; empty where nothing is."""
    places = np.flatnonzero(present[first] | present[second])
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0)


def _between(a: np.ndarray, b: np.ndarray, fraction: np.ndarray) -> np.ndarray:
    return a + (b - a) * fraction


def _numbered(labels: np.ndarray) -> np.ndarray:
    """The same labels, numbered from 0 without gaps."""
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
