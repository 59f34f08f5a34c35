"""Strokes as the kernels read them: one packed array with named views, and the brushes in one flat array."""

from dataclasses import dataclass

import numpy as np

from paintproc.strokes.brushes import ROUND
from paintproc.strokes.ops.kernels import COLUMNS
from paintproc.strokes.values import Strokes


class StrokeArrays:
    """Numbers for each parameter of N strokes: the parameters themselves, gradients, bounds or step sizes.

    `points` [N, 3, 2], `radius` [N, 2], `color` [N, 2, 3] and `alpha` [N, 2] are views of the array
    `packed` [N, 16 or more]: writing to them writes there. Lengths are in the unit that the owner
    chose, in pixels where a kernel reads them. Nothing is checked.
    """

    __slots__ = ("packed",)

    def __init__(self, packed: np.ndarray) -> None:
        self.packed = packed

    @classmethod
    def empty(cls, count: int) -> "StrokeArrays":
        return cls(np.empty((count, COLUMNS), np.float32))

    @classmethod
    def zeros(cls, count: int) -> "StrokeArrays":
        return cls(np.zeros((count, COLUMNS), np.float32))

    @classmethod
    def of(cls, strokes: Strokes, longer_side: float) -> "StrokeArrays":
        """The parameters of `strokes` on a canvas with a longer side of so many pixels."""
        arrays = cls.empty(len(strokes))
        arrays.points[:], arrays.radius[:] = strokes.points, strokes.radius
        arrays.color[:], arrays.alpha[:] = strokes.color, strokes.alpha
        return arrays.scale(longer_side)

    def __len__(self) -> int:
        return len(self.packed)

    def __getitem__(self, index: np.ndarray | slice) -> "StrokeArrays":
        """The strokes at `index`: a view for a slice, else a copy."""
        return StrokeArrays(self.packed[index])

    def __setitem__(self, index: np.ndarray | slice, strokes: "StrokeArrays") -> None:
        """Put `strokes` in the places at `index`."""
        self.packed[index] = strokes.packed

    @property
    def points(self) -> np.ndarray:
        return self.packed[:, :6].reshape(-1, 3, 2)

    @property
    def radius(self) -> np.ndarray:
        return self.packed[:, 6:8]

    @property
    def color(self) -> np.ndarray:
        return self.packed[:, 8:14].reshape(-1, 2, 3)

    @property
    def alpha(self) -> np.ndarray:
        return self.packed[:, 14:16]

    def copy(self) -> "StrokeArrays":
        return StrokeArrays(self.packed.copy())

    def scale(self, factor: float | np.floating) -> "StrokeArrays":
        """Multiply all lengths by `factor`, in place; returns self."""
        self.packed[:, :8] *= np.float32(factor)
        return self

    def as_fields(self, longer_side: float) -> dict[str, np.ndarray]:
        """`points`, `radius`, `color` and `alpha` for a `Strokes`, in canvas units."""
        side = np.float32(longer_side)
        return {
            "points": self.points / side,
            "radius": self.radius / side,
            "color": self.color.copy(),
            "alpha": self.alpha.copy(),
        }


def join(parts: list[StrokeArrays]) -> StrokeArrays:
    """The strokes of all `parts`, one after the other."""
    return StrokeArrays(np.concatenate([part.packed for part in parts]))


@dataclass(frozen=True, eq=False)
class Brushes:
    """The brush of each stroke, and all brush maps in one flat array.

    of      int32 [N]     index of each stroke's brush
    shapes  int32 [K, 4]  where a map begins in `data`, its cells along and across, 1 where it is 1 all over
    data    float32       the cells of all maps
    """

    of: np.ndarray
    shapes: np.ndarray
    data: np.ndarray

    @classmethod
    def gather(cls, brush_of: np.ndarray, maps: tuple[np.ndarray, ...] | np.ndarray = (ROUND,)) -> "Brushes":
        begins = np.cumsum([0, *(brush.size for brush in maps)])
        shapes = [
            (at, *brush.shape, bool((brush == 1).all())) for at, brush in zip(begins[: len(maps)], maps, strict=True)
        ]
        data = np.concatenate([brush.ravel() for brush in maps]).astype(np.float32, copy=False)
        return cls(np.ascontiguousarray(brush_of, np.int32), np.array(shapes, np.int32), data)

    @classmethod
    def round(cls, count: int) -> "Brushes":
        """The plain round brush for `count` strokes."""
        return cls.gather(np.zeros(count, np.int32))
