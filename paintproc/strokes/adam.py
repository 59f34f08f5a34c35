"""Adam within bounds: what moves strokes, whatever the loss."""

from dataclasses import dataclass

import numpy as np

from paintproc.strokes.ops.arrays import StrokeArrays
from paintproc.strokes.ops.compiling import kernel
from paintproc.strokes.ops.kernels import COLUMNS

MOMENTS = (0.8, 0.9)
"""Decay of Adam's two running means."""


@dataclass(frozen=True, eq=False)
class Bounds:
    """For every parameter the optimizer's step, the least and the largest value, each as `StrokeArrays` of N."""

    rate: StrokeArrays
    low: StrokeArrays
    high: StrokeArrays

    @classmethod
    def empty(cls, count: int) -> "Bounds":
        return cls(StrokeArrays.empty(count), StrokeArrays.empty(count), StrokeArrays.empty(count))

    def after(self, begin: int) -> "Bounds":
        return Bounds(self.rate[begin:], self.low[begin:], self.high[begin:])

    def clip(self, strokes: StrokeArrays) -> StrokeArrays:
        """`strokes` brought within the bounds."""
        return StrokeArrays(np.clip(strokes.packed, self.low.packed, self.high.packed))


class Adam:
    """Adam (Kingma and Ba 2015, algorithm 1) within bounds; strokes may be born at any step."""

    def __init__(self, count: int, moments: tuple[float, float] = MOMENTS) -> None:
        self.mean = np.zeros((count, COLUMNS), np.float32)
        self.square = np.zeros((count, COLUMNS), np.float32)
        self.age = np.zeros(count, np.int32)
        self.moments = moments

    def take(self, index: np.ndarray) -> None:
        """Keep what is known of the strokes at `index`, in this order."""
        self.mean, self.square, self.age = self.mean[index], self.square[index], self.age[index]

    def grow(self, births: int) -> None:
        """Begin with `births` new strokes after those that are there."""
        fresh = np.zeros((births, COLUMNS), np.float32)
        self.mean, self.square = np.concatenate([self.mean, fresh]), np.concatenate([self.square, fresh])
        self.age = np.concatenate([self.age, np.zeros(births, np.int32)])

    def after(self, begin: int) -> "Adam":
        """What is known of the strokes from `begin` on; steps of it change this one too."""
        part = Adam(0, self.moments)
        part.mean, part.square, part.age = self.mean[begin:], self.square[begin:], self.age[begin:]
        return part

    def step(self, strokes: StrokeArrays, gradients: StrokeArrays, bounds: Bounds, factor: float = 1.0) -> None:
        """Move `strokes` in place; `factor` scales all steps."""
        self.age += 1
        first, second = (np.float32(moment) for moment in self.moments)
        age = self.age.astype(np.float32)
        scale = np.stack([np.float32(factor) / (1 - first**age), 1 / (1 - second**age)], 1).astype(np.float32)
        adam_step(
            strokes.packed, gradients.packed, self.mean, self.square, scale,
            bounds.rate.packed, bounds.low.packed, bounds.high.packed, first, second,
        )  # fmt: skip


@kernel
def adam_step(rows, gradients, mean, square, scale, rate, low, high, moment1, moment2):  # type: ignore[no-untyped-def]
    one = np.float32(1)
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            slope = gradients[i, j]
            mean[i, j] = moment1 * mean[i, j] + (one - moment1) * slope
            square[i, j] = moment2 * square[i, j] + (one - moment2) * slope * slope
            push = mean[i, j] * scale[i, 0] / (np.sqrt(square[i, j] * scale[i, 1]) + np.float32(1e-10))
            rows[i, j] = min(high[i, j], max(low[i, j], rows[i, j] - rate[i, j] * push))
