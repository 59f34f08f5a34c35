"""`Scene`: the regions of a picture, from far to near."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Scene:
    """A partition of a picture.

    regions  int32 [H, W]  0 is the farthest region, R - 1 the nearest
    parts    int32 [H, W]  smaller pieces, P in all; each lies within one region
    depth    [R]           0 far to 1 near, non-decreasing
    weight   [R]           how much the eye goes there, 0 to 1; 1 is the focus
    method                 what found it

    Raises ValueError where shapes, ranges or the nesting do not fit.
    """

    regions: np.ndarray
    parts: np.ndarray
    depth: np.ndarray
    weight: np.ndarray
    method: str

    def __post_init__(self) -> None:
        if self.regions.ndim != 2 or self.regions.shape != self.parts.shape:
            raise ValueError(f"regions {self.regions.shape} and parts {self.parts.shape} are not one map")
        count = len(self.depth)
        if len(self.weight) != count or not np.array_equal(np.unique(self.regions), np.arange(count)):
            raise ValueError(f"{count} depths, {len(self.weight)} weights, regions {np.unique(self.regions)}")
        if (np.diff(self.depth) < 0).any():
            raise ValueError("depth runs from far to near")
        pairs = np.unique(np.stack([self.parts.ravel(), self.regions.ravel()], 1), axis=0)
        if len(np.unique(pairs[:, 0])) != len(pairs):
            raise ValueError("a part lies in more than one region")

    def __len__(self) -> int:
        return len(self.depth)

    def __repr__(self) -> str:
        height, width = self.regions.shape
        return f"Scene({len(self)} regions, {self.parts.max() + 1} parts, {height} x {width}, {self.method})"

    def area(self) -> np.ndarray:
        """Part of the picture that each region covers [R]."""
        return np.bincount(self.regions.ravel(), minlength=len(self)) / self.regions.size


@dataclass(frozen=True, eq=False)
class Observation:
    """What networks saw in a picture, at a size of their own.

    masks    bool [K, h, w]      things and parts of things; they overlap and nest
    quality  [K]                 how sure the network is of each, 0 to 1
    depth    float32 [h, w]      0 far to 1 near, or None
    trust                        how far the depth takes the place of other cues, 0 to 1
    method                       which networks
    """

    masks: np.ndarray
    quality: np.ndarray
    depth: np.ndarray | None
    trust: float
    method: str

    def __repr__(self) -> str:
        depth = "no depth" if self.depth is None else f"depth trusted {self.trust:g}"
        return f"Observation({len(self.masks)} masks, {depth}, {self.method})"
