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


def check_brush(brush: np.ndarray) -> np.ndarray:
    """Return `brush` as a float32 `[along, across]` map; ValueError if it is none."""
    brush = np.ascontiguousarray(brush, np.float32)
    if brush.ndim != 2 or brush.size == 0:
        raise ValueError(f"a brush is a map [along, across], got shape {brush.shape}")
    if not (np.isfinite(brush).all() and brush.min() >= 0 and brush.max() <= 1):
        raise ValueError("a brush holds opacities between 0 and 1")
    return brush
