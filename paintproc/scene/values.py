"""`Scene`, the regions of a picture from far to near, and `Observation`, the output of networks for a picture."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Scene:
    """The regions of a picture, in order from far to near. Every pixel belongs to one region and one part.

    regions  int32 [H, W]  0 is the farthest region, R - 1 the nearest
    parts    int32 [H, W]  smaller pieces, numbered from 0; each lies within one region
    depth    [R]           0 far to 1 near, non-decreasing
    weight   [R]           how much each region attracts the eye, 0 to 1; 1 is the focus
    method                 what found the regions: `builtin`, or the names of networks

    Raises ValueError where shapes or ranges do not fit, or where a part lies in two regions.
    """

    regions: np.ndarray
    parts: np.ndarray
    depth: np.ndarray
    weight: np.ndarray
    method: str

    def __post_init__(self) -> None:
        if self.regions.ndim != 2 or self.regions.shape != self.parts.shape:
            raise ValueError(f"regions {self.regions.shape} and parts {self.parts.shape} are not [H, W] of one size")
        count = len(self.depth)
        if len(self.weight) != count or not np.array_equal(np.unique(self.regions), np.arange(count)):
            text = f"there are {count} depths and {len(self.weight)} weights for the regions {np.unique(self.regions)}"
            raise ValueError(text)
        if (np.diff(self.depth) < 0).any():
            raise ValueError("depth decreases; regions are numbered from far to near")
        pairs = np.unique(self.parts.astype(np.int64) * count + self.regions)
        if len(np.unique(pairs // count)) != len(pairs):
            raise ValueError("a part lies in more than one region")

    def __len__(self) -> int:
        return len(self.depth)

    def __repr__(self) -> str:
        height, width = self.regions.shape
        return f"Scene({len(self)} regions, {self.parts.max() + 1} parts, {height} x {width}, {self.method})"

    def area(self) -> np.ndarray:
        """Part of the picture that each region covers, [R]; the sum is 1."""
        return np.bincount(self.regions.ravel(), minlength=len(self)) / self.regions.size


@dataclass(frozen=True, eq=False)
class Observation:
    """The output of networks for a picture. Masks and depth may be of other sizes than the picture.

    masks    bool [K, h, w]      objects and parts of objects; they may overlap and nest
    quality  [K]                 how sure the network is of each mask, 0 to 1
    depth    float32 [h, w]      0 far to 1 near, or None
    trust                        how far the depth replaces the built-in cues for the order, 0 to 1
    method                       the names of the networks
    """

    masks: np.ndarray
    quality: np.ndarray
    depth: np.ndarray | None
    trust: float
    method: str

    def __repr__(self) -> str:
        depth = "no depth" if self.depth is None else f"depth trusted {self.trust:g}"
        return f"Observation({len(self.masks)} masks, {depth}, {self.method})"
