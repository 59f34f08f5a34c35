"""Picture distances against scikit-image's."""

import math

import numpy as np
import pytest
from skimage import metrics

from paintproc.metrics.frames import frame_distances, mse, psnr, ssim

RANDOM = np.random.default_rng(3)


@pytest.mark.parametrize("shape", [(40, 60), (11, 11), (128, 30)])
@pytest.mark.parametrize("noise", [2, 30, 200])
def test_equal_to_scikit_image(shape, noise):
    x = RANDOM.integers(0, 256, (*shape, 3)).astype(np.uint8)
    y = np.clip(x + RANDOM.normal(0, noise, x.shape), 0, 255).astype(np.uint8)
    ours = frame_distances(x, y)
    assert ours["psnr"] == pytest.approx(metrics.peak_signal_noise_ratio(x, y), abs=1e-9)
    assert ours["mse"] == pytest.approx(metrics.mean_squared_error(x, y) / 255**2)
    theirs = metrics.structural_similarity(
        x, y, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
    )
    assert ours["ssim"] == pytest.approx(theirs, abs=1e-6)
    assert ours["l1"] == pytest.approx(np.abs(x / 255 - y / 255).mean())


@pytest.mark.parametrize("pixels", [1, 900, 2000])
def test_strips_change_nothing(monkeypatch, pixels):
    x, y = RANDOM.integers(0, 256, (2, 57, 60, 3)).astype(np.uint8)
    whole = frame_distances(x, y)
    monkeypatch.setattr("paintproc.metrics.frames.STRIP", pixels)
    assert frame_distances(x, y) == pytest.approx(whole, rel=1e-12)


def test_a_picture_and_itself():
    x = RANDOM.integers(0, 256, (9, 7, 3)).astype(np.uint8)
    assert mse(x, x) == 0
    assert psnr(x, x) == math.inf
    assert ssim(x, x) == pytest.approx(1)


def test_unequal_pictures_are_refused():
    x = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="shapes"):
        mse(x, x[:3])
    with pytest.raises(ValueError, match="uint8"):
        mse(x / 255, x / 255)
