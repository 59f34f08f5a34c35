"""Distances between two pictures of one size, uint8 sRGB [H, W, 3] each."""

import math
from collections.abc import Iterator

import numpy as np

STRIP = 2**17
"""Pictures are compared in strips of rows with about so many pixels, to save memory."""
MARGIN = 5
"""Half the window of `ssim`, and the border that does not count, in pixels."""


def frame_distances(picture: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """Compare two pictures of one size, uint8 sRGB [H, W, 3], by `mse`, `l1`, `psnr` and `ssim`.

    Values are scaled to [0, 1] first; see `docs/research.md` for the definitions. ValueError where the shapes
    differ or a picture is not uint8.
    """
    return {
        "mse": mse(picture, target),
        "l1": l1(picture, target),
        "psnr": psnr(picture, target),
        "ssim": ssim(picture, target),
    }


def mse(picture: np.ndarray, target: np.ndarray) -> float:
    """Mean squared error over all pixels and channels."""
    return sum(float((d.astype(np.int64) ** 2).sum()) for d in _differences(picture, target)) / (255**2 * picture.size)


def l1(picture: np.ndarray, target: np.ndarray) -> float:
    """Mean absolute error over all pixels and channels."""
    return sum(float(np.abs(d).sum(dtype=np.int64)) for d in _differences(picture, target)) / (255 * picture.size)


def psnr(picture: np.ndarray, target: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal pictures."""
    error = mse(picture, target)
    return -10 * math.log10(error) if error else math.inf


def ssim(picture: np.ndarray, target: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004): Gaussian window of sigma 1.5 and 11 pixels,
    C1 = 0.01^2, C2 = 0.03^2, mean over pixels and channels. The picture is mirrored at its border.
    The 5 outermost rows and columns do not count, unless the picture has no others.
    """
    _check(picture, target)
    height, width = picture.shape[:2]
    top, left = (MARGIN, MARGIN) if min(height, width) > 2 * MARGIN else (0, 0)
    total = 0.0
    strip = _strip(picture)
    for y in range(top, height - top, strip):
        end = min(height - top, y + strip)
        low, high = max(0, y - MARGIN), min(height, end + MARGIN)
        rows = _similarity(picture[low:high], target[low:high])[y - low : end - low]
        total += float(rows[:, left : width - left].sum())
    return total / ((height - 2 * top) * (width - 2 * left) * 3)


def _similarity(picture: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Structural similarity at each pixel and channel [H, W, 3]."""
    import cv2

    def blurred(values: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(values, (2 * MARGIN + 1,) * 2, 1.5, borderType=cv2.BORDER_REFLECT)

    x, y = picture.astype(np.float64) / 255, target.astype(np.float64) / 255
    mean_x, mean_y = blurred(x), blurred(y)
    var_x, var_y = blurred(x * x) - mean_x**2, blurred(y * y) - mean_y**2
    covariance = blurred(x * y) - mean_x * mean_y
    return ((2 * mean_x * mean_y + 1e-4) * (2 * covariance + 9e-4)) / (
        (mean_x**2 + mean_y**2 + 1e-4) * (var_x + var_y + 9e-4)
    )


def _differences(picture: np.ndarray, target: np.ndarray) -> Iterator[np.ndarray]:
    """`picture` minus `target`, int16, strip by strip."""
    _check(picture, target)
    strip = _strip(picture)
    for y in range(0, len(picture), strip):
        yield picture[y : y + strip].astype(np.int16) - target[y : y + strip]


def _strip(picture: np.ndarray) -> int:
    """How many rows make a strip: not fewer than the margin of `ssim` on both sides of one."""
    return max(2 * MARGIN, STRIP // picture.shape[1])


def _check(picture: np.ndarray, target: np.ndarray) -> None:
    """ValueError where the shapes differ or a picture is not uint8."""
    if picture.shape != target.shape:
        raise ValueError(f"pictures of different shapes: {picture.shape} and {target.shape}")
    for one in (picture, target):
        if one.dtype != np.uint8:
            raise ValueError(f"pictures are uint8, got {one.dtype}")
