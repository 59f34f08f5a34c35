"""Distances between two pictures of one size, uint8 sRGB [H, W, 3] each."""

import math

import numpy as np


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
    return float(np.mean((_unit(picture, target) - _unit(target, picture)) ** 2))


def l1(picture: np.ndarray, target: np.ndarray) -> float:
    """Mean absolute error over all pixels and channels."""
    return float(np.mean(np.abs(_unit(picture, target) - _unit(target, picture))))


def psnr(picture: np.ndarray, target: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal pictures."""
    error = mse(picture, target)
    return -10 * math.log10(error) if error else math.inf


def ssim(picture: np.ndarray, target: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004): Gaussian window of sigma 1.5 and 11 pixels,
    C1 = 0.01^2, C2 = 0.03^2, mean over pixels and channels. The picture is mirrored at its border.
    The 5 outermost rows and columns do not count, unless the picture has no others.
    """
    import cv2

    def blurred(values: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(values, (11, 11), 1.5, borderType=cv2.BORDER_REFLECT)

    x, y = _unit(picture, target), _unit(target, picture)
    mean_x, mean_y = blurred(x), blurred(y)
    var_x, var_y = blurred(x * x) - mean_x**2, blurred(y * y) - mean_y**2
    covariance = blurred(x * y) - mean_x * mean_y
    similarity = ((2 * mean_x * mean_y + 1e-4) * (2 * covariance + 9e-4)) / (
        (mean_x**2 + mean_y**2 + 1e-4) * (var_x + var_y + 9e-4)
    )
    inner = similarity[5:-5, 5:-5]
    return float(np.mean(inner if inner.size else similarity))


def _unit(picture: np.ndarray, other: np.ndarray) -> np.ndarray:
    """`picture` scaled to [0, 1], float64. ValueError where it does not fit `other`."""
    if picture.shape != other.shape:
        raise ValueError(f"pictures of different shapes: {picture.shape} and {other.shape}")
    if picture.dtype != np.uint8:
        raise ValueError(f"pictures are uint8, got {picture.dtype}")
    return picture.astype(np.float64) / 255
