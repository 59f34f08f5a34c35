"""Brushes are data: small alpha maps in stroke coordinates.

A brush is a float32 array `[along, across]` in [0, 1] that multiplies a stroke's
coverage. Row 0 lies at the stroke's start, the last row at its end; column 0 at the
left edge (seen along the direction of painting), the last column at the right edge.
Values between cells are interpolated bilinearly.
"""

import numpy as np

ROUND = np.ones((1, 1), np.float32)
"""The plain disc with a soft edge, swept along the stroke: opaque all over."""


def dry_brush() -> np.ndarray:
    """Bristles that run out of paint: streaks along the stroke, thinner to its end, broken by grain."""
    random = np.random.Generator(np.random.Philox(1867))
    streaks = random.uniform(0.55, 1.0, 5)
    along = np.linspace(0, 1, 40)[:, None]
    grain = random.uniform(-0.22, 0.22, (40, 5))
    return np.clip(streaks * (1 - 0.45 * along**2) + grain, 0.05, 1).astype(np.float32)


def oil_brush() -> np.ndarray:
    """A flat bristle brush full of paint: nearly opaque, streaks along it, both ends straight and a little ragged.

    It is transparent at both ends of the curve, so that the stroke's round caps are not seen.
    """
    random = np.random.Generator(np.random.Philox(1853))
    along, across = np.linspace(0, 1, 64)[:, None], np.linspace(-1, 1, 40)
    smooth = np.full(5, 1 / 5)
    first, last = (np.convolve(random.uniform(-1, 1, 44), smooth, "valid") for _ in range(2))
    bristle = first + (last - first) * along + random.uniform(-0.4, 0.4, 40)
    body = (1 - 0.1 * (1 + bristle) * (0.3 + 0.7 * np.abs(across))) * (1 - 0.5 * np.abs(across) ** 8)
    start, end = 0.03 + 0.02 * bristle[0], 0.93 + 0.04 * bristle[-1]
    touch = np.clip((along - start) / 0.05, 0, 1) * np.clip((end - along) / 0.1 + 0.5, 0, 1)
    touch[[0, -1]] = 0
    return np.clip(body * touch, 0, 1).astype(np.float32)


def marker_brush() -> np.ndarray:
    """A felt tip: flat and even, its edge a little translucent."""
    across = np.linspace(-1, 1, 17)[None]
    return (1 - 0.25 * np.abs(across) ** 8).astype(np.float32)


def check_brush(brush: np.ndarray) -> np.ndarray:
    """Return `brush` as a float32 `[along, across]` map; ValueError if it is none."""
    brush = np.ascontiguousarray(brush, np.float32)
    if brush.ndim != 2 or brush.size == 0:
        raise ValueError(f"a brush is a map [along, across], got shape {brush.shape}")
    if not (np.isfinite(brush).all() and brush.min() >= 0 and brush.max() <= 1):
        raise ValueError("a brush holds opacities between 0 and 1")
    return brush
